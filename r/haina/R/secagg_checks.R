# What a member holds against what it is told, before it does anything. Each check passes, or refuses with a typed reason.

# A setting is on the terms that were advertised for ("changed").
check_terms <- function(setting, agreed) {
  if (identical(terms_context(setting), terms_context(agreed))) return(invisible())
  secagg_refuse(
    "changed",
    sprintf(
      "the setting is for round %.0f of '%s' and task %s", setting$round, setting$federation,
      substr(setting$task, 1, 12)
    ),
    sprintf(
      "what was advertised for: round %.0f of '%s' and task %s", agreed$round, agreed$federation,
      substr(agreed$task, 1, 12)
    ),
    "Length, word and the share of corrupt members must be the same too"
  )
}

# The member's own keys are in the cohort ("missing"), and everybody has the identity that is known ("substituted").
check_identities <- function(cohort, own, known) {
  mine <- cohort$adverts[[own$name]]
  if (is.null(mine)) secagg_refuse("missing", sprintf("'%s' is not in the group", own$name))
  if (!identical(advert_bytes(mine), advert_bytes(own))) {
    secagg_refuse("substituted", sprintf("the keys of '%s' are not its own", own$name))
  }
  for (advert in cohort$adverts) {
    pinned <- known(advert$name)
    if (!is.null(pinned) && !identical(pinned, advert$identity)) {
      secagg_refuse(
        "substituted",
        sprintf("'%s' has the identity %s", advert$name, substr(bytes_hex(advert$identity), 1, 16)),
        paste0(substr(bytes_hex(pinned), 1, 16), ", as before"),
        "If it was set up anew, its operator can confirm the new key; until then somebody may be listening"
      )
    }
  }
}

# A vector is as many words as the terms say ("malformed").
check_words <- function(words, terms) {
  wanted <- terms$length * terms$word / 8
  if (!is.raw(words) || length(words) != wanted) {
    secagg_refuse(
      "malformed", sprintf("the vector has %d bytes", length(words)),
      sprintf("%.0f: %.0f words of %d bits", wanted, terms$length, terms$word)
    )
  }
}

# So many shared that the sum can be opened ("too_few"), the member among them ("missing"), and shares are theirs ("unknown").
check_sharers <- function(cohort, name, sharers, near, sealed) {
  check_in(name, sharers, "shared")
  setting <- cohort$setting
  if (length(near) + 1 < setting$threshold || length(sharers) < setting$least) {
    secagg_refuse(
      "too_few", sprintf("%d members shared, %d of them neighbours", length(sharers), length(near)),
      sprintf("%.0f or more, %.0f of them neighbours", setting$least, setting$threshold - 1),
      "Fewer could not open the sum; the round must be tried again"
    )
  }
  strangers <- setdiff(names(sealed), near)
  if (length(strangers)) {
    secagg_refuse(
      "unknown", paste(shown(strangers[1]), "sealed shares"), "neighbours who are said to have shared"
    )
  }
}

# So many uploaded that their sum may be opened ("too_few", "apart"), all of them sharers ("changed"), the member among them ("missing").
check_uploaders <- function(cohort, name, sharers, uploaders) {
  check_in(name, uploaders, "uploaded")
  strangers <- setdiff(uploaders, sharers)
  if (length(strangers)) {
    secagg_refuse(
      "changed", sprintf("'%s' uploaded and did not share", strangers[1]), "uploaders among the sharers"
    )
  }
  least <- cohort$setting$least
  if (length(uploaders) < least) {
    secagg_refuse(
      "too_few", sprintf("the sum is of %d members", length(uploaders)), paste(least, "or more"),
      "The fewer, the more it tells of each; the round must be tried again"
    )
  }
  cohort_check_together(cohort, uploaders)
}

check_in <- function(name, names, what) {
  if (!name %in% names) {
    secagg_refuse("missing", sprintf("'%s' is not among those who %s, and it did", name, what))
  }
}

check_same_view <- function(member, view) {
  if (!identical(view, member$view)) {
    secagg_refuse(
      "changed", "another set of uploaders was agreed to", "one set a round",
      "Two sums that differ by one member would show its vector"
    )
  }
}
