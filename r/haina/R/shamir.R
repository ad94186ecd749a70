# Shamir's secret sharing (1979) of many secrets at once, in the field of 2^31 - 1 numbers.
#
# A secret of 32 bytes is nine limbs of 30 bits; each limb is the value at 0 of a random polynomial of degree t - 1, and a share is the values of all
# nine at one point. A product of two field elements has 62 bits, more than a double holds exactly, so one factor is split in two.

shamir_prime <- 2^31 - 1

# Bits of a limb, and limbs of a secret of 32 bytes.
shamir_bits <- 30L
shamir_limbs <- 9L

#' Shares of some limbs.
#'
#' @param secrets numeric, limbs below 2^31 - 1.
#' @param threshold t >= 1.
#' @param points numeric, different points in 1 to 2^31 - 2, one for each holder.
#' @param entropy function(n): n random bytes.
#' @return matrix, a row for each holder, of values below 2^31 - 1.
#' @noRd
shamir_split <- function(secrets, threshold, points, entropy) {
  coefficients <- rbind(secrets, shamir_random(threshold - 1, length(secrets), entropy), deparse.level = 0)
  shares <- matrix(0, length(points), length(secrets))
  for (row in threshold:1) {
    shares <- (shamir_times(shares, points) + rep(coefficients[row, ], each = length(points))) %% shamir_prime
  }
  shares
}

# x * y modulo 2^31 - 1: x times the upper 15 bits of y has 46, reduced and shifted 47, and x times the lower 16 has 47.
shamir_times <- function(x, y) {
  high <- y %/% 65536
  ((x * high) %% shamir_prime * 65536 + x * (y - high * 65536)) %% shamir_prime
}

# Numbers, uniform below 2^31 - 1, row by row: 31 random bits, drawn again where they are all ones.
shamir_random <- function(rows, columns, entropy) {
  out <- shamir_draw(rows * columns, entropy)
  while (length(again <- which(out == shamir_prime))) out[again] <- shamir_draw(length(again), entropy)
  matrix(out, rows, columns, byrow = TRUE)
}

shamir_draw <- function(size, entropy) {
  bytes <- matrix(as.integer(entropy(4 * size)), 4)
  bytes[4, ] <- bitwAnd(bytes[4, ], 127L)
  colSums(bytes * 256^(0:3))
}

# `[9 n]` limbs of n secrets of 32 bytes.
shamir_to_limbs <- function(secrets) {
  bits <- matrix(as.integer(rawToBits(secrets)), 256)
  bits <- rbind(bits, matrix(0L, shamir_limbs * shamir_bits - 256, ncol(bits)))
  as.vector(2^(0:(shamir_bits - 1)) %*% matrix(bits, shamir_bits))
}

# Field elements as bytes, each in four with the lowest first; and whether bytes are such.
shamir_bytes <- function(values) writeBin(as.integer(values), raw(), 4, endian = "little")

shamir_readable <- function(shares) {
  if (length(shares) %% 4 != 0) return(FALSE)
  bytes <- matrix(as.integer(shares), 4)
  all(colSums(bytes * 256^(0:3)) < shamir_prime)
}
