# Bounding: a vector made no longer than a limit, in the sum of its sizes (L1) or in length (L2).
#
# Noise is measured against the limit, so the limit must hold for the numbers that come out: a vector is shortened to a little less than the limit, by
# more than all rounding can add. Sums are taken in a tree of plain doubles, so that every machine sends the same bits, and an error is a few units in
# the last place.

#' @param vector numeric, finite.
#' @param limit longest, > 0. NULL: as it is.
#' @param norm 1 or 2.
#' @return the vector, no longer than the limit.
#' @noRd
bound_vector <- function(vector, limit, norm = 2) {
  if (is.null(limit)) return(vector)
  if (!isTRUE(limit > 2^-400 && limit < 2^400)) {
    privacy_stop(paste("the bound of a norm is", limit), "a number > 0, between 1e-120 and 1e120")
  }
  if (!all(is.finite(vector))) {
    first <- which(!is.finite(vector))[1]
    privacy_stop(
      sprintf("coordinate %d of a vector to be clipped is %g", first, vector[first]), "finite numbers",
      "Training diverged: lower its learning rate"
    )
  }
  largest <- max(abs(vector), 0)
  if (largest < 2^-500) return(vector)
  # In units of about its largest number no square overflows; a power of two, so that nothing is rounded.
  unit <- 2^binary_exponent(largest)
  scaled <- vector / unit
  length <- if (norm == 1) tree_sum(abs(scaled)) else sqrt(tree_sum(scaled^2))
  # Each level of the tree adds half a unit in the last place, each product and the root another.
  room <- 1 - 64 * 2^-52
  if (length <= limit / unit * room) vector else scaled * (limit * room / length)
}

# A sum of halves, and halves of halves.
tree_sum <- function(values) {
  while ((count <- length(values)) > 1) {
    half <- count %/% 2
    rest <- if (count %% 2) values[count]
    values <- c(values[seq_len(half)] + values[half + seq_len(half)], rest)
  }
  sum(values)
}
