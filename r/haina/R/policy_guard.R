# One update a round, and what it costs: this site's own word on whether an update may leave (`haina.node.guard`).
#
# A site has a budget for its rows: its owner's (`join(budget = )`), which holds over all federations of the folder, or else the federation's own.
# Noise that the site adds is charged to it, durably, before anything leaves; noise that the coordinator promises is charged where the owner has a
# budget.
#
# The trap is an owner with a budget in a federation without noise: what it gives away has no epsilon, so it takes no part.

#' A site's own guard in one federation.
#'
#' @param policy of the federation, or NULL where it promises nothing.
#' @param budget the owner's: an epsilon, `c(epsilon = , delta = )`, or NULL.
#' @return an environment, for `guard_begin`, `guard_refusal` and `guard_left`.
#' @noRd
privacy_guard <- function(policy, federation, owner, folder, budget = NULL, dataset = "") {
  guard <- new.env(parent = emptyenv())
  guard$policy <- policy
  guard$federation <- federation
  guard$owner <- owner
  guard$dataset <- dataset
  guard$own <- FALSE
  path <- file.path(folder, ledger_file)
  if (is.null(policy) && is.null(budget) && !file.exists(path)) return(guard)
  guard$ledger <- open_ledger(path)
  standing <- guard$ledger$budgets[[budget_key(owner, dataset)]]
  if (!is.null(budget)) standing <- ledger_open_budget(guard$ledger, owner_budget(budget, owner, dataset))
  planned <- guard_planned(guard)
  if (is.null(standing) && !is.null(planned)) standing <- ledger_open_budget(guard$ledger, planned)
  guard$own <- !is.null(standing) && (is.null(planned) || !same_terms(standing, planned))
  if (guard$own) check_countable(guard, standing)
  guard
}

# Why this site takes no part in a round: an error, not thrown; NULL where it may. Nothing is written.
guard_refusal <- function(guard, round) {
  if (is.null(guard$ledger) || is.null(guard$policy)) return(NULL)
  tryCatch(
    {
      if (round <= ledger_used_round(guard$ledger, guard$federation)) refuse_replayed(guard, round)
      charge <- guard_charge(guard, round)
      if (!is.null(charge)) refuse_unpayable(guard, charge, ledger_refusal(guard$ledger, charge))
      NULL
    },
    haina_privacy_error = identity
  )
}

#' Write down, durably, that an update of a round leaves from now on. An error where the budget is spent or the ledger cannot be used, or "replayed":
#' an update of this round, or of a later one, has left before. What covers one does not cover two.
#' @noRd
guard_begin <- function(guard, round) {
  if (is.null(guard$ledger) || is.null(guard$policy)) return(invisible())
  if (round <= ledger_used_round(guard$ledger, guard$federation)) refuse_replayed(guard, round)
  charge <- guard_charge(guard, round)
  if (!is.null(charge)) {
    # What this federation promises to take is asked first, for a reservation is not taken back.
    refuse_unpayable(guard, charge, ledger_refusal(guard$ledger, charge))
    ledger_reserve(guard$ledger, charge)
  }
  if (!ledger_use_round(guard$ledger, guard$federation, round)) refuse_replayed(guard, round)
  invisible()
}

# The update of a round has left. Where that cannot be written down, it counts as it stands.
guard_left <- function(guard, round) {
  charge <- if (!is.null(guard$ledger) && !is.null(guard$policy)) guard_charge(guard, round)
  if (!is.null(charge)) {
    tryCatch(ledger_released(guard$ledger, charge$id), haina_privacy_error = function(error) NULL)
  }
  invisible()
}

owner_budget <- function(budget, owner, dataset) {
  numbers <- unlist(budget)
  epsilon <- if (is.null(names(numbers))) numbers[1] else numbers["epsilon"]
  delta <- if ("delta" %in% names(numbers)) numbers[["delta"]] else 0
  if (!isTRUE(epsilon > 0 && epsilon <= 1e6) || !isTRUE(delta >= 0 && delta < 1)) {
    config_stop(
      paste("the budget is", shown(budget)),
      allowed = "an epsilon above 0, or c(epsilon = , delta = ) with a delta in [0, 1)"
    )
  }
  made_budget(owner, dataset, epsilon, delta, if (delta > 0) "zcdp" else "pure")
}

made_budget <- function(owner, dataset, epsilon, delta, composition) {
  list(
    owner = owner, dataset = dataset, epsilon = as.double(epsilon), delta = as.double(delta),
    composition = composition
  )
}

# The budget that the federation's file would open.
guard_planned <- function(guard) {
  said <- guard$policy$allowance
  if (is.null(said)) return(NULL)
  made_budget(
    guard$owner, guard$dataset, said$epsilon, said$delta,
    if (identical(said$composition, "zcdp")) "zcdp" else "pure"
  )
}

check_countable <- function(guard, standing) {
  mechanism <- guard$policy$mechanism
  if (is.null(mechanism)) {
    config_stop(
      sprintf(
        "%s has a budget for its rows, and federation %s promises no epsilon", guard$owner, guard$federation
      ),
      allowed = "federations with noise ([privacy] noise)",
      remedy = "Take part with another folder if that is what the owner of the rows wants"
    )
  }
  if (standing$composition == "pure" && mechanism$norm == 2) {
    config_stop(
      sprintf(
        "%s adds epsilons, and %s has none without a delta", budget_words(standing),
        mechanism_words(mechanism)
      ),
      allowed = "a budget with a delta, well below 1 / clients; or federations with Laplace noise",
      remedy = "Give budget = c(epsilon = 8, delta = 1e-5)"
    )
  }
}

# What a round costs this site; NULL where nothing is counted here.
guard_charge <- function(guard, round) {
  policy <- guard$policy
  if (is.null(policy$mechanism)) return(NULL)
  if (!guard$own && (policy$noise == "central" || is.null(policy$allowance))) return(NULL)
  cost <- mechanism_cost(policy$mechanism)
  charge <- list(
    id = sprintf("%s/%.0f/%s", guard$federation, round, guard$owner), owner = guard$owner,
    dataset = guard$dataset,
    federation = guard$federation, round = round,
    mechanism = paste(policy$noise, mechanism_words(policy$mechanism)),
    delta = cost$delta, rho = cost$rho
  )
  charge$epsilon <- cost$epsilon
  charge
}

refuse_unpayable <- function(guard, charge, reason) {
  planned <- if (guard$own) guard_planned(guard)
  if (is.null(reason) && !is.null(planned) && !identical(guard$policy$allowance$composition, "pld")) {
    # The owner may allow more than this federation promises to take.
    before <- ledger_total(guard$ledger, planned, guard$federation, but = charge$id)
    reason <- budget_refusal(planned, before, charge)
  }
  if (!is.null(reason)) privacy_stop("the privacy budget of this site is spent", reason)
}

refuse_replayed <- function(guard, round) {
  secagg_refuse(
    "replayed",
    sprintf(
      "this site has sent an update for round %.0f of '%s' or a later one already", round, guard$federation
    ),
    "one a round, as what hides one update gives two away",
    "If the coordinator was set up anew, the federation needs another name"
  )
}
