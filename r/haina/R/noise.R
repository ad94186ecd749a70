# Noise on whole numbers, exact: no floating point on the way from random bits to a draw, for its holes give away what it covers (Mironov 2012, "On
# Significance of the Least Significant Bits for Differential Privacy").
#
# Gaussian: k with probability ~ exp(-k^2 / 2 sigma^2) (Canonne, Kamath & Steinke 2020, "The Discrete Gaussian for Differential Privacy"). Up to sigma
# = 1024 a draw is one look into a table that reaches to 13 sigma; wider ones are sums of draws on coarser and coarser grids, 128 A + B with B of
# sigma 512. Laplace: a geometric number has independent digits, so any scale is drawn from small tables. Signs are in the top digit: a negative -1 -
# G mirrors G. Why both are exact is said in `haina.privacy.noise`; the same key gives the same draws there.

noise_block <- 2^14
gauss_ratio <- 128
laplace_widest <- 128
laplace_digit <- 10
laplace_scales <- 84

#' Independent draws of discrete Gaussian noise.
#'
#' @param count how many.
#' @param variance a fraction, the parameter sigma^2 > 0.
#' @param stream random bits.
#' @param tables an environment in which tables are kept; a wide one takes a second to make.
#' @return numeric, whole numbers.
#' @noRd
gaussian_noise <- function(count, variance, stream, tables = new.env()) {
  parts <- rev(lapply(gaussian_parts(variance), gaussian_table, tables))
  in_blocks(count, function(size) {
    block <- 0
    for (table in parts) block <- block * gauss_ratio + table_draw(table, size, stream)
    block
  })
}

# No draw is larger than this.
gaussian_reach <- function(variance) {
  parts <- gaussian_parts(variance)
  sum(vapply(parts, gaussian_table_reach, 0) * gauss_ratio^(seq_along(parts) - 1))
}

# Variances of the draws that one is made of, finest first.
gaussian_parts <- function(variance) {
  widest <- fraction(two_to(20))
  low <- fraction(two_to(18))
  parts <- list()
  while (fraction_exceeds(variance, widest)) {
    parts <- c(parts, list(low))
    variance <- fraction_over(fraction_minus(variance, low), fraction(whole(gauss_ratio^2)))
  }
  c(parts, list(variance))
}

gaussian_table_reach <- function(variance) {
  floor(sqrt(fraction_floor(fraction_times(fraction(whole(13^2)), variance)))) + 2
}

gaussian_table <- function(variance, tables) {
  kept_table(tables, paste("gaussian", fraction_key(variance)), function() {
    rate <- fraction_over(
      fraction(openssl::bignum(1)), fraction_times(fraction(openssl::bignum(2)), variance)
    )
    right <- exact_squares(rate, gaussian_table_reach(variance) + 1)
    noise_table(c(rev(right[-1]), right), 1 - length(right))
  })
}

# How far the sum of independent draws may be from one draw of the whole variance, for one coordinate: 10 * sum over k = 1 ... n - 1 of
# exp(-2 pi^2 sigma^2 k / (k + 1)) (Kairouz, Liu & Steinke 2021, "The Distributed Discrete Gaussian Mechanism", theorem 1).
distance_of_sum <- function(variance, parties) {
  rate <- 2 * pi^2 * variance
  # Terms fall to exp(-rate), so after a few the rest are as good as equal.
  first <- min(parties - 1, 64)
  k <- seq_len(first)
  10 * (sum(exp(-rate * k / (k + 1))) + (parties - 1 - first) * exp(-rate * first / (first + 1)))
}

#' Independent draws of Laplace noise.
#'
#' @param scale a fraction, b > 0 in units.
#' @param rounded a real Laplace number rounded to the nearest whole one; else k with probability ~ exp(-|k| / b).
#' @noRd
laplace_noise <- function(count, scale, rounded, stream, tables = new.env()) {
  if (rounded) scale <- fraction_times(scale, fraction(openssl::bignum(2)))
  digits <- laplace_digits(scale)
  top <- laplace_top(scale, rounded, digits, tables)
  shifts <- cumsum(c(0, digits$bits))[seq_along(digits$bits)]
  lower <- Map(function(shift, bits) laplace_lower(scale, shift, bits, tables), shifts, digits$bits)
  in_blocks(count, function(size) {
    draw <- table_draw(top, size, stream)
    negative <- draw < 0
    out <- draw * 2^digits$below
    for (place in seq_along(lower)) {
      digit <- table_draw(lower[[place]], size, stream)
      # Below zero a digit counts downwards.
      out <- out + ifelse(negative, 2^digits$bits[place] - 1 - digit, digit) * 2^shifts[place]
    }
    if (rounded) floor((out + 1) / 2) else out
  })
}

laplace_reach <- function(scale, rounded) {
  digits <- laplace_digits(if (rounded) fraction_times(scale, fraction(openssl::bignum(2))) else scale)
  largest <- digits$top * 2^digits$below
  if (rounded) largest %/% 2 + 1 else largest
}

# How a scale is divided: bits of each lower digit, finest first, of all of them, and below which size the top digit lies.
laplace_digits <- function(scale) {
  wide <- fraction_floor(fraction_over(scale, fraction(whole(laplace_widest))))
  below <- if (wide == 0) 0 else floor(log2(wide)) + 1
  bits <- c(rep(laplace_digit, below %/% laplace_digit), if (below %% laplace_digit) below %% laplace_digit)
  scales <- fraction_over(fraction_times(fraction(whole(laplace_scales)), scale), fraction(two_to(below)))
  list(bits = bits, below = below, top = fraction_floor(scales) + 2)
}

laplace_lower <- function(scale, shift, bits, tables) {
  kept_table(tables, paste("digit", shift, bits, fraction_key(scale)), function() {
    noise_table(exact_powers(fraction_over(fraction(two_to(shift)), scale), 2^bits), 0)
  })
}

laplace_top <- function(scale, even, digits, tables) {
  kept_table(tables, paste("top", even, fraction_key(scale)), function() {
    right <- exact_powers(fraction_over(fraction(two_to(digits$below)), scale), digits$top)
    fall <- exact_exponential(fraction_over(fraction(openssl::bignum(1)), scale))
    left <- if (even) right else lapply(right, function(weight) drop_bytes(weight * fall, exact_bytes))
    noise_table(c(rev(left), right), -digits$top)
  })
}

in_blocks <- function(count, draw) {
  sizes <- c(rep(noise_block, count %/% noise_block), if (count %% noise_block) count %% noise_block)
  as.double(unlist(lapply(sizes, draw)))
}

kept_table <- function(tables, key, make) {
  if (is.null(tables[[key]])) tables[[key]] <- make()
  tables[[key]]
}
