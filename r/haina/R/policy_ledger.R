# The owner's own ledger: what may still leave this site, whatever the coordinator's ledger says.
#
# A file of lines, each one JSON object, to which lines are added and never changed. A charge is on the disk before anything of it is sent
# (`durable`), and a kill between the two leaves it charged. A last line that a kill cut short was never acted on, and is dropped.
#
#     {"budget":   {owner, dataset, epsilon, delta, composition, opened}}
#     {"charge":   {id, owner, dataset, federation, round, mechanism, epsilon, delta, rho, at}}      reserved
#     {"released": {id}}                                                                             it has left
#     {"used":     {federation, round}}                                                              an upload for this round was begun
#
# How charges add up is `haina.privacy.ledger`'s: "pure" adds epsilons and deltas, "zcdp" adds rhos against the rho that implies (epsilon, delta).
# Sums are exact: a number is the decimal that a person would write for it, in units of 1e-30, for 4,000 charges of 1e-3 fit into 4.0, and not one
# more.
#
# The trap is the file itself: whoever deletes it, or puts an old copy in its place, gives the budget back.

ledger_file <- "privacy.jsonl"
# Decimal places of a unit, and longest file that is read.
ledger_places <- 30
ledger_longest <- 64 * 1024^2

#' A site's ledger.
#'
#' @param path the file; made, for its owner only, where there is none.
#' @return an environment, for the `ledger_` functions. An error of class haina_privacy_error where it cannot be used: then nothing may leave.
#' @noRd
open_ledger <- function(path) {
  ledger <- new.env(parent = emptyenv())
  ledger$path <- path
  ledger$budgets <- ledger$charges <- ledger$used <- ledger$totals <- list()
  if (!file.exists(path)) {
    tryCatch(write_whole(path, ""), error = function(error) ledger_unusable(path, error))
    return(ledger)
  }
  text <- tryCatch(
    rawToChar(read_whole(path, ledger_longest)), error = function(error) ledger_unusable(path, error)
  )
  lines <- strsplit(text, "\n", fixed = TRUE)[[1]]
  if (nzchar(text) && !endsWith(text, "\n")) {
    lines <- lines[-length(lines)]
    tryCatch(
      write_whole(path, paste0(lines, "\n", recycle0 = TRUE, collapse = "")),
      error = function(error) ledger_unusable(path, error)
    )
  }
  for (line in lines) {
    tryCatch(
      ledger_apply(ledger, jsonlite::fromJSON(line, simplifyVector = FALSE)),
      error = function(error) ledger_unusable(path, error)
    )
  }
  ledger
}

# Open a budget. To open it again on the same terms changes nothing; on others it is refused, for they are fixed. Returns it as it stands.
ledger_open_budget <- function(ledger, budget) {
  key <- budget_key(budget$owner, budget$dataset)
  there <- ledger$budgets[[key]]
  if (!is.null(there)) {
    if (!same_terms(there, budget)) {
      config_stop(paste(budget_words(budget), "is asked for"),
                  allowed = paste0(budget_words(there), ", as it was opened"),
                  remedy = "What a budget allows is fixed when it is opened")
    }
    return(there)
  }
  budget$opened <- as.double(Sys.time())
  ledger_add(ledger, list(budget = budget))
  ledger$budgets[[key]]
}

#' Why a charge cannot be reserved now; NULL where it can, or is already.
#' @param charge a list: id, owner, dataset, federation, round, mechanism, epsilon (or NULL), delta, rho.
#' @noRd
ledger_refusal <- function(ledger, charge) {
  there <- ledger$charges[[charge$id]]
  if (!is.null(there)) {
    same <- identical(to_json(there[charge_terms]), to_json(charge[charge_terms]))
    if (!same) return("another charge has its id")
    return(if (isTRUE(there$released)) "it is released already; another release needs a charge of its own")
  }
  key <- budget_key(charge$owner, charge$dataset)
  budget <- ledger$budgets[[key]]
  if (is.null(budget)) return(sprintf("'%s' has opened no budget for '%s'", charge$owner, charge$dataset))
  budget_refusal(budget, ledger$totals[[key]], charge)
}

# Reserve a charge, durably: NULL, or why not.
ledger_reserve <- function(ledger, charge) {
  reason <- ledger_refusal(ledger, charge)
  if (is.null(reason) && is.null(ledger$charges[[charge$id]])) {
    ledger_add(ledger, list(charge = c(charge, at = as.double(Sys.time()))))
  }
  reason
}

# A charge's release has taken place.
ledger_released <- function(ledger, id) {
  if (!is.null(ledger$charges[[id]]) && !isTRUE(ledger$charges[[id]]$released)) {
    ledger_add(ledger, list(released = list(id = id)))
  }
  invisible()
}

# The newest round of a federation for which an upload was begun; 0 before the first.
ledger_used_round <- function(ledger, federation) {
  used <- ledger$used[[federation]]
  if (is.null(used)) 0 else used
}

# Begin an upload for a round, once, durably: FALSE for the newest round so far, and for every older one.
ledger_use_round <- function(ledger, federation, round) {
  if (round < 1 || round <= ledger_used_round(ledger, federation)) return(FALSE)
  ledger_add(ledger, list(used = list(federation = federation, round = round)))
  TRUE
}

# What one federation has charged to a budget's data, as another budget counts it, without one charge: a list of epsilon, delta and rho, in units.
ledger_total <- function(ledger, budget, federation, but) {
  total <- no_units()
  for (charge in ledger$charges) {
    own <- budget_key(charge$owner, charge$dataset) == budget_key(budget$owner, budget$dataset)
    if (own && charge$federation == federation && charge$id != but) {
      total <- Map(`+`, total, charge_units(budget, charge))
    }
  }
  total
}

# Why a budget that has so much charged to it does not admit a charge; NULL where it does.
budget_refusal <- function(budget, total, charge) {
  if (budget$composition == "pure" && is.null(charge$epsilon)) {
    return(paste(budget_words(budget), "counts epsilon, and the charge states none"))
  }
  cost <- charge_units(budget, charge)
  cap <- budget[c("epsilon", "delta")]
  if (budget$composition == "zcdp") cap <- list(rho = rho_of_epsilon(budget$epsilon, budget$delta))
  for (name in names(cap)) {
    after <- total[[name]] + cost[[name]]
    # One part in 10^12 more than it says, so that a plan that divides a budget by its rounds in doubles gets all of them.
    if (after * whole(1e12) > decimal_units(cap[[name]]) * (whole(1e12) + whole(1))) {
      said <- vapply(
        list(total[[name]], decimal_units(cap[[name]]), cost[[name]]),
        function(x) as.double(as.character(x)) / 10^ledger_places, 0
      )
      return(sprintf(
        "%s would be overspent: %s %.6g of %.6g is spent, and the charge is %.6g more", budget_words(budget),
        name, said[1], said[2], said[3]
      ))
    }
  }
  NULL
}

no_units <- function() {
  none <- openssl::bignum(0)
  list(epsilon = none, delta = none, rho = none)
}

charge_terms <- c("id", "owner", "dataset", "federation", "round", "mechanism", "epsilon", "delta", "rho")
same_terms <- function(a, b) identical(
  lapply(a[budget_terms], format, digits = 17), lapply(b[budget_terms], format, digits = 17)
)
budget_terms <- c("owner", "dataset", "epsilon", "delta", "composition")
budget_key <- function(owner, dataset) paste0(owner, "\n", dataset)
budget_words <- function(budget) {
  sprintf(
    "%s's budget for '%s' (%s, epsilon %g, delta %g)", budget$owner, budget$dataset, budget$composition,
    budget$epsilon, budget$delta
  )
}

# What a charge counts for, in units of 1e-30.
charge_units <- function(budget, charge) {
  none <- openssl::bignum(0)
  if (budget$composition == "pure") {
    return(list(epsilon = decimal_units(charge$epsilon), delta = decimal_units(charge$delta), rho = none))
  }
  if (charge$rho > 0) return(list(epsilon = none, delta = none, rho = decimal_units(charge$rho)))
  epsilon <- decimal_units(charge$epsilon)
  list(epsilon = none, delta = none, rho = over_up(epsilon * epsilon, whole(2) * ten_to(ledger_places)))
}

# A double as the decimal that a person would write for it, in units of 1e-30, rounded up.
decimal_units <- function(value) {
  if (value == 0) return(openssl::bignum(0))
  parts <- strsplit(sub("e", " ", shortest(value), fixed = TRUE), " ", fixed = TRUE)[[1]]
  digits <- strsplit(parts[1], ".", fixed = TRUE)[[1]]
  places <- if (length(digits) > 1) nchar(digits[2]) else 0
  exponent <- (if (length(parts) > 1) as.integer(parts[2]) else 0) - places + ledger_places
  number <- openssl::bignum(sub("^0+(?=.)", "", paste(digits, collapse = ""), perl = TRUE))
  if (exponent >= 0) number * ten_to(exponent) else over_up(number, ten_to(-exponent))
}

ten_to <- function(power) openssl::bignum(10)^openssl::bignum(as.integer(power))
over_up <- function(number, by) (number + by - openssl::bignum(1)) %/% by

ledger_add <- function(ledger, entry) {
  written <- tryCatch(
    {
      file <- file(ledger$path, "ab")
      tryCatch(writeBin(charToRaw(paste0(to_json(entry), "\n")), file), finally = close(file))
      durable(ledger$path)
      NULL
    },
    error = identity, warning = identity
  )
  if (!is.null(written)) ledger_unusable(ledger$path, written)
  ledger_apply(ledger, entry)
}

# One line of the file becomes part of what is known. A charge without its budget cannot have been written here.
ledger_apply <- function(ledger, entry) {
  said <- entry[[1]]
  key <- budget_key(said$owner, said$dataset)
  switch(
    names(entry)[1],
    budget = {
      ledger$budgets[[key]] <- said
      ledger$totals[[key]] <- no_units()
    },
    charge = {
      ledger$charges[[said$id]] <- said
      ledger$totals[[key]] <- Map(`+`, ledger$totals[[key]], charge_units(ledger$budgets[[key]], said))
    },
    released = ledger$charges[[said$id]]$released <- TRUE,
    used = ledger$used[[said$federation]] <- as.double(said$round),
    stop("a line is of a newer haina")
  )
  invisible()
}

ledger_unusable <- function(path, error) {
  privacy_stop(
    sprintf("the privacy ledger %s cannot be used (%s)", path, conditionMessage(error)),
    remedy = "Nothing is released without it. Free the disk, or restore the newest copy; begin no new one"
  )
}
