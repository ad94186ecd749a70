# This site's part in the secure sum of one round, from a trained update to the shares that open the sum (`haina.node.sealing`).
#
# Secrets are in memory only. The coordinator says which step comes next, and nothing else: who the others are is held against their signatures and
# the keys that are known of them, and how a sum must be made follows from the federation file.
#
# The trap is to be asked twice. The same question gets the same bytes, for an answer may be lost on its way; another question of the same kind goes
# to the member, which knows which of them must never be answered.

#' One round's part.
#'
#' @param policy with secure aggregation.
#' @param task that was trained, as it came.
#' @param update a list of `vector` and `examples`; forgotten once it is masked.
#' @param name of this site, `key` its signing key, `peers` the others' keys.
#' @param fewest members of a group below which this site takes no part.
#' @param begin function(round), called before anything of the update leaves; it stops where that must not be.
#' @param entropy function(n): n random bytes.
#' @noRd
secagg_part <- function(
  policy, task, update, name, key, peers, fewest, begin, entropy = openssl::rand_bytes
) {
  part <- new.env(parent = emptyenv())
  terms <- secagg_terms(
    task$federation, task$round, task_digest(task), policy_size(policy, length(update$vector)),
    policy_word(policy), policy$hidden$corrupt
  )
  part$policy <- policy
  part$task <- task
  part$update <- update
  part$name <- name
  part$peers <- peers
  part$fewest <- fewest
  part$begin <- begin
  part$entropy <- entropy
  part$terms <- terms
  part$members <- 0
  part$delivered <- FALSE
  part$answers <- list()
  part$member <- secagg_member(name, key, terms, entropy)
  part$advert <- sealed_message(part, "advertise", advert_bytes(member_advertise(part$member)))
  part
}

# TRUE for a step, or a task, of this very round.
part_fits <- function(part, step) identical(
  step$federation, part$task$federation
) && step$round == part$task$round

# TRUE where this very question was answered before.
part_answered <- function(part, step) identical(part$answers[[step$stage]]$question, step_question(step))

#' What a step is answered with: a list of `stage` and `data` to be sent as it is, or of `words`, `codec` and `length` to be uploaded. An error says
#' why it must not be answered.
#' @noRd
part_answer <- function(part, step) {
  if (!part_answered(part, step)) {
    answer <- switch(
      step$stage,
      share = part_share(part, step), upload = part_mask(part, step), consent = part_consent(part, step),
      unmask = part_unmask(part, step),
      secagg_refuse("malformed", paste("a step is", shown(step$stage)), "share, upload, consent or unmask")
    )
    part$answers[[step$stage]] <- list(question = step_question(step), answer = answer)
  }
  part$answers[[step$stage]]$answer
}

# The upload has arrived.
part_forget_words <- function(part) {
  part$delivered <- TRUE
  part$answers$upload$answer$words <- raw(0)
  invisible()
}

part_share <- function(part, step) {
  adverts <- lapply(unname(unpack_table(step_bytes(step))), read_advert)
  if (length(adverts) < part$fewest) {
    secagg_refuse(
      "weak", sprintf("the group has %d members", length(adverts)),
      paste(part$fewest, "or more, as the federation file promises"),
      "The smaller the group, the more its sum tells of each"
    )
  }
  admit_peers(part$peers, adverts, part$name)
  hidden <- part$policy$hidden
  chosen <- secagg_plan(length(adverts), hidden$corrupt, hidden$dropout)
  setting <- secagg_setting(
    part$terms, step$group, chosen$degree, chosen$threshold, policy_least(part$policy, length(adverts))
  )
  shares <- member_share(part$member, setting, adverts, function(name) known_peer(part$peers, name))
  meet_peers(part$peers, adverts)
  part$members <- length(adverts)
  sealed_message(part, "share", pack_table(shares))
}

part_mask <- function(part, step) {
  inbox <- read_inbox(step_bytes(step))
  if (part$members == 0) secagg_refuse("order", "an update is asked for before keys were shared")
  if (is.null(part$update)) {
    secagg_refuse(
      "replayed",
      sprintf("an update of round %.0f is asked for a second time, with other company", part$task$round),
      "once a round",
      "Two masks of one update would show it"
    )
  }
  limit <- policy_limit(part$policy, part$task)
  words <- tryCatch(
    policy_seal(
      part$policy, part$update$vector, part$update$examples, limit, part$members,
      noise_stream(part$entropy(32))
    ),
    # Which number it was is told to the person here alone.
    haina_privacy_error = function(error) privacy_stop(
      "its update does not fit into the sum", allowed = conditionMessage(error)
    )
  )
  masked <- member_upload(part$member, inbox, words)
  part$begin(part$task$round)
  part$update <- NULL
  list(
    words = masked, codec = if (policy_word(part$policy) == 32) "masked" else "masked64",
    length = part$terms$length
  )
}

part_consent <- function(part, step) sealed_message(
  part, "consent", member_consent(part$member, step$uploaders)
)

part_unmask <- function(part, step) {
  sealed_message(part, "unmask", member_unmask(part$member, step$uploaders, unpack_table(step_bytes(step))))
}

sealed_message <- function(part, stage, data) {
  list(
    federation = part$task$federation, round = part$task$round, stage = stage,
    data = openssl::base64_encode(data)
  )
}

step_bytes <- function(step) {
  text <- if (is.null(step$data)) "" else step$data
  if (!grepl("^[A-Za-z0-9+/]*={0,2}$", text) || nchar(text) %% 4 != 0) {
    secagg_refuse("malformed", sprintf("what comes with %s is not base64", step$stage))
  }
  if (nzchar(text)) openssl::base64_decode(text) else raw(0)
}

# What is asked, whatever the clock says.
step_question <- function(step) {
  asked <- list(
    step$federation, step$round, step$stage, step$group, step$data, as.list(unlist(step$uploaders))
  )
  bytes_hex(digest(charToRaw(to_json(asked))))
}

#' The fewest members of a group in which a site takes part: what the file says of how many nodes a round has, and how large groups are. A coordinator
#' could otherwise put a site into a group of three, whose sum tells more than that of all.
#' @param file of the brief: all sections with their defaults.
#' @noRd
fewest_members <- function(file, policy) {
  serve <- file$serve
  wanted <- min(
    serve$nodes, if (is.null(file$train$clients_per_round)) serve$nodes else file$train$clients_per_round
  )
  # A quorum of 1 is one node, and of 1.0 all of them: JSON tells them apart, and R by their type.
  enough <- if (is.integer(serve$quorum)) min(serve$quorum, wanted) else ceiling(serve$quorum * wanted - 1e-9)
  if (!is.null(policy$hidden$group)) enough <- min(enough, (2 * policy$hidden$group) %/% 3)
  strategy <- file$strategy
  # Where trust puts those whom it has shut out by themselves, their groups may be that small; so may those of secret sampling.
  lonely <- !is.null(strategy$trust) || any(
    part_names(strategy$preset) %in% c("robust", "trusted")
  ) || "poisson" %in% part_names(strategy$select)
  if (lonely) secagg_fewest else max(secagg_fewest, enough)
}
