# Table: draws from any distribution on a run of whole numbers, by inverting its distribution function.
#
# The thresholds T[i] = floor(2^128 P(X <= i)) are compared with a uniform number of 128 bits, of which the first 64 decide unless they equal those of
# a threshold; the other 64 are drawn only then. The distance of what is drawn from what is meant is at most size * 2^-128 a draw in total variation.
#
# Most draws need no search: the first 16 bits lead to a cell of [0, 1), and most cells hold no threshold (a guide table; Chen & Asau 1974).

#' A distribution on `first`, `first + 1`, ...
#' @param weights list of big integers >= 0, in proportion to the probabilities, two or more.
#' @noRd
noise_table <- function(weights, first) {
  # Their sum, and running sums below all but the last.
  below <- Reduce(`+`, weights, accumulate = TRUE)
  total <- below[[length(below)]]
  scale <- two_to(128)
  most <- scale - openssl::bignum(1)
  thresholds <- vapply(below[-length(below)], function(sum) {
    one <- (sum * scale) %/% total
    # The last numbers may weigh too little to be told from certainty.
    if (one > most) one <- most
    number_bytes(one, 16)
  }, raw(16))
  limbs <- matrix(limbs_of(as.vector(thresholds)), 8)
  cells <- limbs[8, ]
  guide <- findInterval(0:65535, cells, left.open = TRUE)
  guide[cells + 1] <- -1L
  list(limbs = limbs, high = high_bits(limbs[5:8, , drop = FALSE]), guide = guide, first = first)
}

# The upper 48 bits of words of 64, exact in a double.
high_bits <- function(limbs) limbs[4, ] * 2^32 + limbs[3, ] * 2^16 + limbs[2, ]

#' So many independent draws; 8 bytes of the stream for each.
#' @noRd
table_draw <- function(table, count, stream) {
  words <- stream_limbs(stream, count)
  out <- table$guide[words[4, ] + 1]
  rest <- which(out < 0)
  if (length(rest)) out[rest] <- table_search(table, words[, rest, drop = FALSE], stream)
  out + table$first
}

# The number of thresholds that are not above a uniform number with these first bits.
table_search <- function(table, words, stream) {
  high <- high_bits(words)
  found <- findInterval(high, table$high, left.open = TRUE)
  ties <- which(table$high[pmin(found + 1, length(table$high))] == high)
  for (tie in ties) {
    run <- which(table$high == high[tie])
    below <- table$limbs[5, run] < words[1, tie]
    same <- run[table$limbs[5, run] == words[1, tie]]
    found[tie] <- found[tie] + sum(below)
    if (length(same)) {
      second <- stream_limbs(stream, 1)
      found[tie] <- found[tie] + sum(apply(table$limbs[1:4, same, drop = FALSE], 2, not_above, second))
    }
  }
  found
}

# Whether a word of four limbs, the lowest first, is not above another.
not_above <- function(word, other) {
  unlike <- which(word != other)
  length(unlike) == 0 || word[max(unlike)] < other[max(unlike)]
}
