# What a site may say of its rows, and when it must say nothing: the same limits and words as at Python sites (haina.learners.disclosure).
#
# The trap is the reason for saying nothing: it travels. So it holds what is allowed, which everybody knows, and never what was found.

# Stop where there are fewer than `needed` rows.
enough_rows <- function(rows, needed) {
  if (rows >= needed) return(invisible())
  if (!rows) haina_stop("it has no rows")
  haina_stop(sprintf("it has fewer than %.0f rows, which its answer would give away", needed))
}

# Stop where some rows are not `allowed`, in words.
all_usable <- function(usable, allowed) {
  if (!all(usable)) haina_stop(sprintf("some of its rows cannot be used (allowed: %s)", allowed))
}

# An answer that would show single persons stays. Of an error only `what` travels (`reason_of`), and here all of it shall, as from Python sites.
withheld <- function(what, allowed, remedy) haina_stop(sprintf("%s. Allowed: %s. %s.", what, allowed, remedy))

# Stop where a cell holds 1 to `min_cell` - 1 rows and the coordinator would see it.
refuse_small <- function(cells, learner) {
  if (learner$check == "site" && any(cells > 0 & cells < learner$min_cell)) {
    withheld(
      sprintf("a cell of its table has fewer than %.0f rows, which it would give away", learner$min_cell),
      sprintf("cells of 0 or at least %.0f rows", learner$min_cell),
      paste("Merge levels or widen bins; or hide single sites by [privacy] secure_aggregation",
            "and write check = \"sum\"")
    )
  }
}
