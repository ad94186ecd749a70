# Secure sums and ledgers in a site's life: what the session asks of this site's privacy.
#
# The trained update stays in memory, and the steps of the sum come as answers to the same question as tasks. Nothing of it survives a kill: that site
# has left the sum, and says so when it is asked.

# What an upload may be written in beside a federation's codecs: the words of a secure sum, of 32 or 64 bits.
secagg_codecs <- c("masked", "masked64")

#' This site's part in secure sums, as the session calls it.
#'
#' @param site of the session.
#' @param what "open" before the first round; "fits": does a task belong to the part that is under way; "advertise" a trained update; take a "step".
#' @param ... of "fits" the task, of "advertise" the task and the update (`vector`, `report`), of "step" the step.
#' @noRd
sealing <- function(site, what, ...) {
  switch(
    what,
    open = open_privacy(site), fits = part_fits(site$part, ...), advertise = advertise_update(site, ...),
    step = take_step(site, ...),
    stop("no such part of a secure sum: ", what)
  )
}

# The ledger and the keys of this site; what cannot be kept here is refused before the first round.
open_privacy <- function(site) {
  site$guard <- privacy_guard(
    site$policy, site$federation, site$own$name, site$folder, site$budget, site$dataset
  )
  if (!is_hidden(site)) return(invisible())
  site$signing <- signing_key(site$folder)
  site$peers <- secagg_peers(site$folder)
  site$fewest <- fewest_members(site$brief$file, site$policy)
  site$identity <- bytes_hex(public_bytes(site$signing))
  if (identical(site$policy$noise, "distributed") && site$policy$mechanism$norm == 2) {
    # The lower table of wide noise is always this one. Making it takes a second, which no round should wait for.
    gaussian_table(fraction(two_to(18)), site$policy$tables)
  }
  site$tell(paste("the key of this site in secure sums, for the other sites:", site$identity))
}

# Say that a round is trained, and keep what was learnt for the steps that follow.
advertise_update <- function(site, task, update) {
  refused <- guard_refusal(site$guard, task$round)
  if (!is.null(refused)) {
    site$tell(sprintf("round %.0f: %s", task$round, conditionMessage(refused)))
    say_failed(site, task$round, refusal_words(refused))
    return(rest(site, 1))
  }
  part <- secagg_part(
    site$policy, task, list(vector = update$vector, examples = update$report$examples), site$own$name,
    site$signing, site$peers, site$fewest,
    function(round) guard_begin(site$guard, round)
  )
  reason <- say_sealed(site, part$advert)
  if (nzchar(reason)) {
    return(say_failed(site, task$round, cut_text(paste("its keys were not taken:", reason))))
  }
  site$part <- part
  site$tell(sprintf("round %.0f: trained; waiting to be summed with others", task$round))
}

# Take the next step of a secure sum, or say why not.
take_step <- function(site, step) {
  part <- site$part
  answer <- tryCatch(
    {
      if (is.null(part) || !part_fits(part, step)) {
        secagg_refuse(
          "order",
          sprintf(
            "%s of round %.0f is asked for, and this site has no secrets of it", step$stage, step$round
          ),
          remedy = "It was started again in the middle of the round; it will be there in the next"
        )
      }
      if (part_answered(part, step)) {
        # Another replica has not heard of the answer yet.
        rest(site, 0.1)
        if (step$stage == "upload" && part$delivered) return(invisible())
      }
      part_answer(part, step)
    },
    haina_privacy_error = identity
  )
  if (inherits(answer, "error")) {
    site$part <- NULL
    return(decline_step(site, step, answer))
  }
  if (!is.null(answer$words)) return(upload_words(site, part, answer))
  refused <- say_sealed(site, answer)
  if (step$stage == "unmask") {
    # Others may have been quicker, and enough.
    site$delivered <- site$delivered + 1
  } else if (nzchar(refused)) {
    site$part <- NULL
  }
  invisible()
}

upload_words <- function(site, part, masked) {
  # Beside the words, an upload says nothing: neither how many rows there are, nor how well they were learnt.
  manifest <- manifest_of(
    site, part$task, masked$words, masked$codec, masked$length, list(examples = 1, steps = 1)
  )
  manifest <- signed(manifest, site$own$key)
  reason <- send(site, manifest, to_json(manifest), masked$words)
  has_left(site, manifest$round)
  if (is.null(reason)) {
    part_forget_words(part)
    site$tell(sprintf("round %.0f: delivered (%.0f bytes, masked)", manifest$round, manifest$bytes))
  } else {
    site$part <- NULL
    say_refused(site, manifest$round, reason)
  }
}

# Send a message of a secure sum: why the coordinator does not take it; empty when it does.
say_sealed <- function(site, message) {
  path <- round_path(site$federation, message$round, "sealed")
  reason <- tryCatch(
    {
      ack <- patiently(site, function() call_json(site$door, "POST", path, message))
      if (!identical(ack$fate, "refused")) "" else if (nzchar(ack$reason)) ack$reason else "refused"
    },
    haina_refusal = conditionMessage
  )
  if (nzchar(reason)) site$tell(sprintf("round %.0f: %s", message$round, reason))
  reason
}

# Take no further part, and say why: to the person here, and to the operator. Asked again and again, it says no more.
decline_step <- function(site, step, error) {
  about <- paste(step$round, step$stage)
  if (identical(site$declined, about)) return(rest(site, 1))
  site$declined <- about
  site$tell(sprintf("round %.0f: this site goes no further. %s", step$round, conditionMessage(error)))
  if (step$stage %in% c("share", "upload")) return(say_failed(site, step$round, refusal_words(error)))
  say_sealed(
    site,
    list(federation = step$federation, round = step$round, stage = step$stage, reason = refusal_words(error))
  )
  invisible()
}

# Why an update of a round must not leave in the clear; NULL where it may, which is then written down.
may_leave <- function(site, round) {
  tryCatch(
    {
      guard_begin(site$guard, round)
      NULL
    },
    haina_privacy_error = function(error) {
      site$tell(sprintf("round %.0f: %s", round, conditionMessage(error)))
      refusal_words(error)
    }
  )
}

# The update of a round has left, whatever became of it.
has_left <- function(site, round) guard_left(site$guard, round)
