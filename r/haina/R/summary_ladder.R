# Rungs between two doubles, evenly by the order of doubles: bit for bit those of Python sites and of the coordinator (haina.learners.summary.ladder),
# for what is counted below a rung is added up over all sites.
#
# Doubles of one sign lie in the order of their bits, taken as whole numbers, so each has a place: the number of its bits, or less that of its
# magnitude where it is negative. R has no integers of 64 bits, so a place is two halves as doubles: `high` (with the sign) times 2^32, and `low` in
# [0, 2^32). Every product and quotient here is below 2^53 and so exact.

HALF <- 2^32

# `[length(low), rungs]` rungs; rung k is at place low + floor((high - low) k / (rungs + 1)), and rungs + 1 is a power of two.
ladder <- function(low, high, rungs) {
  first <- place_of(low)
  last <- place_of(high)
  apart <- carried(last$high - first$high, last$low - first$low)
  parts <- rungs + 1
  k <- seq_len(rungs)
  high <- outer(apart$high, k)
  whole <- floor(high / parts)
  low <- floor(((high - whole * parts) * HALF + outer(apart$low, k)) / parts)
  # Vectors of bounds run along the columns of these matrices.
  matrix(double_at(carried(first$high + whole, first$low + low)), ncol = rungs)
}

# Places of doubles.
place_of <- function(x) {
  bytes <- matrix(as.double(writeBin(as.double(x), raw(), endian = "big")), nrow = 8L)
  high <- drop(2^c(24, 16, 8, 0) %*% bytes[1:4, , drop = FALSE])
  low <- drop(2^c(24, 16, 8, 0) %*% bytes[5:8, , drop = FALSE])
  negative <- high >= HALF / 2
  sign <- ifelse(negative, -1, 1)
  carried(sign * (high - negative * HALF / 2), sign * low)
}

# The doubles at places.
double_at <- function(place) {
  negative <- place$high < 0
  sign <- ifelse(negative, -1, 1)
  magnitude <- carried(sign * place$high, sign * place$low)
  high <- magnitude$high + negative * HALF / 2
  byte <- function(half, k) as.vector(half) %/% 256^k %% 256
  bytes <- rbind(byte(high, 3), byte(high, 2), byte(high, 1), byte(high, 0),
                 byte(magnitude$low, 3), byte(magnitude$low, 2), byte(magnitude$low, 1), byte(magnitude$low, 0))
  readBin(as.raw(bytes), "double", length(place$high), endian = "big")
}

# A place whose lower half is in [0, 2^32).
carried <- function(high, low) list(high = high + floor(low / HALF), low = low - floor(low / HALF) * HALF)
