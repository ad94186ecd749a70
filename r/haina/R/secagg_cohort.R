# A group that has come together: who is in it, in which order, and who is whose neighbour.
#
# The cohort's digest covers the setting and every advert, sorted by name; it goes into every key and every consent. Members stand on a ring in the
# order of SHA-256(digest, name), and each is a neighbour of the `degree / 2` before and after it. Everyone finds the order alone, so the coordinator
# cannot choose it; and it is not known before the last advert is.

#' The members of a group.
#'
#' @param setting of the group.
#' @param adverts list, of all its members, in any order.
#' @return a list: setting, adverts (by name), names (ascending), digest. "malformed" where a name or an identity appears twice, or the degree does
#'   not fit their number.
#' @noRd
secagg_cohort <- function(setting, adverts) {
  names <- vapply(adverts, function(advert) advert$name, "")
  identities <- vapply(adverts, function(advert) bytes_hex(advert$identity), "")
  if (anyDuplicated(names) || anyDuplicated(identities)) {
    secagg_refuse(
      "malformed", sprintf("%d adverts have %d names", length(names), length(unique(names))),
      "each name and each identity once"
    )
  }
  adverts <- stats::setNames(adverts, names)[order(names, method = "radix")]
  whole <- length(adverts) - 1
  degree <- setting$degree
  if (!(degree == whole || (degree < whole && degree %% 2 == 0)) || length(adverts) > secagg_largest) {
    secagg_refuse("malformed", paste("the degree is", degree), paste0(whole, ", or a smaller even number"))
  }
  body <- unlist(lapply(unname(adverts), advert_body))
  context <- digest(charToRaw(paste0(secagg_domain, "cohort")), as.raw(0), setting_context(setting), body)
  list(setting = setting, adverts = adverts, names = names(adverts), digest = context)
}

# The order in which the members stand.
cohort_ring <- function(cohort) {
  start <- c(charToRaw(paste0(secagg_domain, "ring")), as.raw(0), cohort$digest)
  places <- vapply(cohort$names, function(name) bytes_hex(digest(start, charToRaw(enc2utf8(name)))), "")
  cohort$names[order(places, method = "radix")]
}

# Of one member, ascending.
cohort_neighbours <- function(cohort, name) {
  degree <- cohort$setting$degree
  size <- length(cohort$names)
  if (degree == size - 1) return(setdiff(cohort$names, name))
  ring <- cohort_ring(cohort)
  steps <- setdiff(seq(-degree / 2, degree / 2), 0)
  sorted(ring[(match(name, ring) - 1 + steps) %% size + 1])
}

# 32 bytes for who shared and who uploaded: what a consent is given to. Both ascending.
cohort_view <- function(cohort, sharers, uploaders) {
  listed <- function(names) c(big_bytes(length(names), 4), unlist(lapply(names, name_bytes)))
  digest(
    charToRaw(paste0(secagg_domain, "view")), as.raw(0), cohort$digest, listed(sharers), listed(uploaders)
  )
}

# Names of this group, each once, in ascending order; else "unknown" or "malformed".
cohort_check_names <- function(cohort, names, what) {
  names <- as.character(unlist(names))
  strangers <- setdiff(names, cohort$names)
  if (length(strangers)) {
    secagg_refuse("unknown", paste(shown(strangers[1]), what), "the members of the group")
  }
  if (anyDuplicated(names)) {
    secagg_refuse("malformed", sprintf("%d members %s twice", sum(duplicated(names)), what))
  }
  sorted(names)
}

# Refuse a set of uploaders whose sum could fall into sums of parts: two stretches of the ring cut it when nobody in them is honest and there. So any
# two that do not overlap must have more uploaders than there can be corrupt members (`secagg_together`).
cohort_check_together <- function(cohort, uploaders) {
  size <- length(cohort$names)
  width <- cohort$setting$degree %/% 2
  needed <- secagg_together(size, cohort$setting$degree, cohort$setting$corrupt)
  if (needed == 0) return(invisible())
  there <- as.numeric(cohort_ring(cohort) %in% uploaders)
  sums <- cumsum(c(0, there, there[seq_len(width - 1)]))
  stretches <- sums[-seq_len(width)] - sums[seq_len(size)]
  fewest <- two_apart(stretches, width)
  if (fewest < needed) {
    secagg_refuse(
      "apart", sprintf("two stretches of %d neighbours have %.0f uploaders", width, fewest),
      paste(needed, "or more: as it is, the sum of a part could be opened"),
      "Try the round again; if this repeats, plan for more drop-outs"
    )
  }
}

# The smallest sum of two stretches (each begins at its index of a ring) that do not overlap.
two_apart <- function(stretches, width) {
  size <- length(stretches)
  best <- Inf
  order <- order(stretches)
  for (place in seq_along(order)) {
    one <- order[place]
    if (2 * stretches[one] >= best) break
    others <- order[place:size]
    apart <- others[(others - one) %% size >= width & (others - one) %% size <= size - width]
    if (length(apart)) best <- min(best, stretches[one] + stretches[apart[1]])
  }
  best
}
