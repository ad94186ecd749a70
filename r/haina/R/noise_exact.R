# Exact numbers: fractions of big integers, and exp(-x) of a fraction as an integer in units of 2^-256, for the tables that noise is drawn from.
#
# A unit of 2^-256 is twice as fine as the thresholds of a table, so that the errors of ten thousands of products stay far below what a threshold
# shows.

# Bytes after the point, and more bytes for the errors of the series and of the squarings.
exact_bytes <- 32L
exact_guard <- 8L

# A fraction: top / bottom. A double is one, exactly.
fraction <- function(top, bottom = openssl::bignum(1)) list(top = top, bottom = bottom)

fraction_of <- function(value) {
  bytes <- as.integer(double_bytes(value))
  exponent <- (bytes[1] * 256 + bytes[2]) %/% 16 %% 2048
  mantissa <- sum(c(bytes[2] %% 16, bytes[3:8]) * 256^(6:0)) + if (exponent > 0) 2^52 else 0
  shift <- max(exponent, 1) - 1075
  if (shift >= 0) fraction(whole(mantissa) * two_to(shift)) else fraction(whole(mantissa), two_to(-shift))
}

fraction_times <- function(x, y) fraction(x$top * y$top, x$bottom * y$bottom)
fraction_over <- function(x, y) fraction(x$top * y$bottom, x$bottom * y$top)
fraction_plus <- function(x, y) fraction(x$top * y$bottom + y$top * x$bottom, x$bottom * y$bottom)
fraction_minus <- function(x, y) fraction(x$top * y$bottom - y$top * x$bottom, x$bottom * y$bottom)
fraction_exceeds <- function(x, y) x$top * y$bottom > y$top * x$bottom

# The largest whole number that is not above a fraction, as a double; exact below 2^53.
fraction_floor <- function(x) as.double(as.character(x$top %/% x$bottom))

fraction_key <- function(x) paste(as.character(x$top), as.character(x$bottom))

# A big number without its lowest bytes.
drop_bytes <- function(number, count) {
  bytes <- as.raw(unclass(number))
  if (length(bytes) <= count) openssl::bignum(0) else openssl::bignum(bytes[seq_len(length(bytes) - count)])
}

#' exp(-x) in units of 2^-256, to within one unit.
#' @param x a fraction >= 0.
#' @noRd
exact_exponential <- function(x) {
  zero <- openssl::bignum(0)
  floor <- fraction_floor(x)
  if (fraction_exceeds(x, fraction(openssl::bignum(256)))) return(zero)
  # exp(-x) = exp(-x / 2^h)^(2^h) with x / 2^h < 1; each of the at most nine squarings doubles the relative error.
  halvings <- if (floor == 0) 0 else floor(log2(floor)) + 1
  bytes <- exact_bytes + exact_guard
  small <- (x$top * two_to(8 * bytes)) %/% (x$bottom * two_to(halvings))
  term <- total <- two_to(8 * bytes)
  k <- 0
  while (term > zero) {
    k <- k + 1
    term <- drop_bytes(term * small, bytes) %/% whole(k)
    total <- if (k %% 2) total - term else total + term
  }
  for (turn in seq_len(halvings)) total <- drop_bytes(total * total, bytes)
  drop_bytes(total, exact_guard)
}

# exp(-x k) for k = 0 ... count - 1; the error of the k-th is at most 2 k units.
exact_powers <- function(x, count) {
  ratio <- exact_exponential(x)
  out <- vector("list", count)
  out[[1]] <- two_to(8 * exact_bytes)
  for (k in seq_len(count - 1)) out[[k + 1]] <- drop_bytes(out[[k]] * ratio, exact_bytes)
  out
}

# exp(-x k^2) for k = 0 ... count - 1; the error of the k-th is at most 2 k^2 units. The ratio of neighbours is exp(-x (2 k + 1)), and itself falls by
# exp(-2 x) from one to the next.
exact_squares <- function(x, count) {
  ratio <- exact_exponential(x)
  fall <- exact_exponential(fraction_times(x, fraction(openssl::bignum(2))))
  out <- vector("list", count)
  out[[1]] <- two_to(8 * exact_bytes)
  for (k in seq_len(count - 1)) {
    out[[k + 1]] <- drop_bytes(out[[k]] * ratio, exact_bytes)
    ratio <- drop_bytes(ratio * fall, exact_bytes)
  }
  out
}
