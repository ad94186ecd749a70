# Policy: what a federation promises about its updates, as this site makes it for itself from the federation file.
#
# What a client sends passes one line, whatever is asked for (`haina.privacy.policy`):
#
#     bound -> weigh -> round to a grid -> add noise -> (mask)        sum of whole numbers -> (unmask) -> (noise) -> mean
#
# Local noise is a client's own and whole; distributed noise is a part of it, so that only the sum is covered, and therefore hidden in a secure sum;
# central noise is added to the sum by the coordinator. Exact statistics are summed in two words of 64 bits each, and never bounded.
#
# The trap is what R cannot do: it says so when it joins, and not in the middle of a round.

# How much the weight, and the bit of adaptive clipping, may add to a vector, as a part of the limit.
policy_slot <- 0.25
# Units of the grid in a sensitivity, where the grid is the client's own.
policy_units <- 2^30

# Presets in which every client counts alike; in the others they weigh by their examples.
equal_presets <- c("scaffold", "feddyn", "qfedavg", "krum", "bulyan", "median", "trimmed_mean")

#' What a federation promises.
#'
#' @param brief of the coordinator's welcome, read from JSON without simplifying (`Federation.brief`).
#' @return a list, or NULL where the file has no `[privacy]`: `noise`, `mechanism` (NULL without noise), `hidden` (NULL in the clear), `allowance`,
#'   `most` (examples that count at most, NULL where all count alike), `adaptive`, `summed`, `clip` (a fixed limit, or NULL), `rounds`.
#' @noRd
policy_of <- function(brief) {
  section <- brief$file$privacy
  if (is.null(section)) return(NULL)
  refuse_what_r_lacks(section)
  summed <- identical(brief$payload, "sum")
  weighs <- weighs_by_examples(brief$file$strategy) && !summed
  hidden <- policy_hidden(section$secure_aggregation, summed)
  list(
    noise = section$noise,
    mechanism = if (section$noise != "none") policy_mechanism(section, brief$file$train$rounds),
    hidden = hidden,
    allowance = section$budget,
    most = if (!is.null(hidden) && weighs) as.double(section$max_examples),
    adaptive = is.list(section$clip) && "adaptive" %in% names(section$clip),
    summed = summed,
    clip = if (is.numeric(section$clip)) as.double(section$clip),
    rounds = brief$file$train$rounds,
    promises = unlist(brief$promises),
    tables = new.env(parent = emptyenv())
  )
}

refuse_what_r_lacks <- function(section) {
  if (identical(section$unit, "example")) {
    config_stop(
      "the federation protects single rows by noise inside local training, which this package does not have",
      allowed = 'unit = "client"', remedy = 'Take part with a Python node and learner = "torch"'
    )
  }
  whole_schedule <- identical(section$budget$composition, "pld")
  asked <- section$noise != "central" || is.null(mechanism_strength(section$mechanism))
  if (whole_schedule && section$noise != "none" && asked) {
    config_stop(
      'the federation accounts for its rounds by "pld", and this package has no such accountant',
      allowed = 'composition = "zcdp" or "pure"',
      remedy = 'Write [privacy.budget] composition = "zcdp", or take part with a Python node'
    )
  }
}

policy_hidden <- function(said, summed) {
  if (is.null(said) || identical(said, FALSE)) return(NULL)
  given <- if (is.list(said)) said else list()
  # Statistics are sums over rows, of any size that rows give them: as far as their two words reach.
  defaults <- list(group = NULL, corrupt = 0.1, dropout = 0.1, range = if (summed) 2^40 else 4, patience = 60)
  hidden <- lapply(
    stats::setNames(nm = names(defaults)),
    function(name) if (is.null(given[[name]])) defaults[[name]] else given[[name]]
  )
  lapply(Filter(Negate(is.null), hidden), as.double)
}

# The noise of one round: as given, or as much as keeps the budget for all rounds.
policy_mechanism <- function(section, rounds) {
  said <- if (is.null(section$mechanism)) "gaussian" else section$mechanism
  kind <- if (is.list(said)) intersect(names(said), names(noise_kinds)) else said
  if (length(kind) != 1 || !kind %in% names(noise_kinds)) {
    config_stop(
      paste("the mechanism", shown(said), "is unknown here"),
      allowed = paste(names(noise_kinds), collapse = ", ")
    )
  }
  strength <- mechanism_strength(section$mechanism)
  if (is.null(strength)) {
    strength <- budgeted_strength(kind, section$budget, if (is.null(section$correlated)) rounds else 1)
  }
  noise_mechanism(kind, strength)
}

# The number that a mechanism is given with, or NULL: {gaussian = 1.1}, or {gaussian = {noise_multiplier = 1.1}}.
mechanism_strength <- function(said) {
  if (!is.list(said)) return(NULL)
  inner <- said[[intersect(names(said), names(noise_kinds))[1]]]
  beside <- said[intersect(names(said), c("noise_multiplier", "epsilon"))]
  found <- unlist(c(inner, beside), use.names = FALSE)
  if (length(found)) as.double(found[[1]])
}

# The least noise a round with which a data set can take part in so many rounds, rounded to the safe side where people read it.
budgeted_strength <- function(kind, budget, rounds) {
  if (is.null(budget)) {
    config_stop(paste(kind, "is given without its strength, and there is no budget to make it from"))
  }
  down <- function(value) {
    places <- 10^(9 - floor(log10(value)))
    floor(value * places) / places
  }
  laplace <- noise_kinds[[kind]] == 1
  if (identical(budget$composition, "pure")) {
    if (!laplace) {
      config_stop(
        paste(kind, "noise has no epsilon without a delta"),
        remedy = 'Write composition = "zcdp" with a delta, or mechanism = "laplace"'
      )
    }
    return(down(budget$epsilon / rounds))
  }
  rho <- rho_of_epsilon(budget$epsilon, budget$delta) / rounds
  if (laplace) down(sqrt(2 * rho)) else ceiling(1 / sqrt(2 * rho) * 1e6) / 1e6
}

weighs_by_examples <- function(strategy) {
  if (!is.null(strategy$weigh)) return("samples" %in% part_names(strategy$weigh))
  !any(part_names(strategy$preset) %in% equal_presets)
}

# The names of one part or of several, as a file says them: a name, a table with the name as a key, or a list of these.
part_names <- function(said) {
  if (is.null(said)) return(character())
  if (is.character(said)) return(said)
  c(
    names(said),
    unlist(lapply(unname(said), function(one) if (is.list(one)) names(one) else if (is.character(one)) one))
  )
}

#' The limit of a round, as the task says it; refused where the file promises another one, or noise and none.
#' @noRd
policy_limit <- function(policy, task) {
  limit <- task$limit
  if (is.null(limit) && !is.null(policy$mechanism)) {
    secagg_refuse(
      "changed", "the task names no limit, and noise covers updates up to one",
      "the limit that the federation file asks for",
      "Without it the update would leave with less cover than was promised"
    )
  }
  if (!is.null(policy$clip) && !isTRUE(limit == policy$clip)) {
    secagg_refuse(
      "changed", sprintf("the limit is %s", if (is.null(limit)) "none" else limit),
      sprintf("%g, as the federation file says", policy$clip)
    )
  }
  if (!is.null(limit)) as.double(limit)
}

# Words before the vector, words that a client hands to the secure sum, and bits of a word.
policy_slots <- function(policy) (!is.null(policy$most)) + policy$adaptive
policy_size <- function(policy, dimension) {
  if (policy$summed) 2 * dimension else policy_slots(policy) + dimension
}
policy_word <- function(policy) if (policy$summed) 64 else 32

# Members of a group without whose updates its sum is not opened.
policy_least <- function(policy, clients) {
  hidden <- policy$hidden
  chosen <- secagg_plan(clients, hidden$corrupt, hidden$dropout)
  wanted <- ceiling((1 - hidden$dropout) * clients - 1e-9)
  if (policy$noise == "distributed") max(chosen$least, wanted) else chosen$least
}

#' What holds for the sum of a group: a list of grid, unit (of the slots), sensitivity (in units) and parties.
#' @noRd
policy_terms <- function(policy, dimension, limit, clients) {
  bound <- if (is.null(limit)) policy$hidden$range else limit
  shared <- policy$noise == "distributed"
  # One of few can always work with the coordinator: each knows its own part of the noise.
  parties <- 1
  if (shared) parties <- max(1, policy_least(policy, clients) - corrupted(clients, policy$hidden$corrupt))
  mechanism <- if (policy$noise %in% c("distributed", "central")) policy$mechanism
  if (is.null(mechanism)) {
    grid <- grid_for_sum(bound, clients)
    return(list(grid = grid, unit = grid$most, sensitivity = 0, parties = 1))
  }
  sensitivity <- function(step) policy_sensitivity(policy, policy_size(policy, dimension), bound, step)
  tail <- function(step) {
    whole_tail <- mechanism_tail(mechanism, sensitivity(step), parties)
    # Central noise is one draw on the sum, for which all clients give room.
    if (shared) whole_tail else ceiling(whole_tail / clients)
  }
  grid <- grid_for_sum(bound, clients, tail)
  list(
    grid = grid, unit = 2 * max(1, floor(policy_slot * bound / grid$step / 2)),
    sensitivity = sensitivity(grid$step), parties = parties
  )
}

# Of the sum, in units: the vector's limit, the slots', and what rounding can add.
policy_sensitivity <- function(policy, size, limit, step) {
  weighted <- policy_slot * (!is.null(policy$most))
  bit <- policy_slot / 2 * policy$adaptive
  if (policy$mechanism$norm == 1) return(limit / step * (1 + weighted + bit) + size)
  limit / step * sqrt(1 + weighted^2 + bit^2) + sqrt(size)
}

#' What a client of a group hands to the secure sum.
#'
#' @param vector numeric, its update; statistics where they are summed.
#' @param examples its own.
#' @param limit of this round, or NULL.
#' @param clients members of its group.
#' @param stream random bits for rounding and noise, never used before.
#' @return raw: little-endian words, to be masked.
#' @noRd
policy_seal <- function(policy, vector, examples, limit, clients, stream) {
  if (policy$summed) return(sealed_statistics(policy, vector))
  terms <- policy_terms(policy, length(vector), limit, clients)
  norm <- if (is.null(policy$mechanism)) 2 else policy$mechanism$norm
  bounded <- bound_vector(vector, limit, norm)
  share <- if (is.null(policy$most)) 1 else min(max(examples, 0), policy$most) / policy$most
  units <- grid_quantise(terms$grid, bounded * share, stream)
  slots <- c(
    if (!is.null(policy$most)) round(share * terms$unit),
    if (policy$adaptive) terms$unit %/% 2 * if (identical(bounded, vector)) 1 else -1
  )
  units <- c(slots, units)
  if (policy$noise == "distributed") {
    units <- units + mechanism_noise(
      policy$mechanism, length(units), terms$sensitivity, stream, terms$parties, policy$tables
    )
  }
  if (any(abs(units) > grid_half)) {
    privacy_stop("a number has no place in a word of 32 bits", "what the grid leaves room for")
  }
  word_bytes(units, 32)
}

# Statistics as two whole numbers each, of 2^-3 and, for what is left, of 2^-43: right to 1e-13, whatever their size.
sealed_statistics <- function(policy, vector) {
  if (!all(is.finite(vector)) || any(abs(vector) > policy$hidden$range)) {
    privacy_stop(
      "a statistic is not finite, or too large for a secure sum",
      sprintf("numbers up to %g", policy$hidden$range),
      "Give columns of such size other units"
    )
  }
  high <- round(vector * 8)
  low <- round((vector - high / 8) * 2^43)
  word_bytes(c(high, low), 64)
}

# A vector with the noise of one release, on a grid of its own.
policy_cover <- function(policy, vector, sensitivity, stream) {
  rounding <- if (policy$mechanism$norm == 1) length(vector) else sqrt(length(vector))
  step <- sensitivity / policy_units
  # Two vectors that differ by the sensitivity differ by this much once each is rounded.
  noise <- mechanism_noise(
    policy$mechanism, length(vector), policy_units + rounding, stream, tables = policy$tables
  )
  (round(vector / step) + noise) * step
}
