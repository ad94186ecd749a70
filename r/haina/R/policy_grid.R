# Grid: vectors of numbers as vectors of whole numbers modulo 2^32, so that a sum of them is exact and can be hidden.
#
# A coordinate is rounded to one of its two neighbours at random, so that it is right on average. n clients with whole numbers up to `most`, each with
# up to `tail` units of noise, stay in a word while n (most + tail) <= 2^31 - 1, and this is required of a grid before anything is sent. Client and
# coordinator find the same grid alone (`haina.privacy.grid`).

grid_half <- 2^31 - 1

#' The finest grid whose sums cannot wrap, with a power of two as its step.
#'
#' @param bound largest size of a coordinate of one client, > 0.
#' @param clients vectors in one sum.
#' @param tail function(step): largest size of the noise on one client's coordinate, in units.
#' @return a list: step, most.
#' @noRd
grid_for_sum <- function(bound, clients, tail = function(step) 0) {
  if (!isTRUE(bound > 2^-900 && bound < 2^900)) {
    privacy_stop(paste("a coordinate is bounded by", bound), "a finite number > 0")
  }
  room <- grid_half %/% clients
  if (room < 1) {
    privacy_stop(
      paste(clients, "clients are to be added up in words of 32 bits"), paste("at most", grid_half)
    )
  }
  step <- 2^(binary_exponent(bound) - binary_exponent(room) - 1)
  while (ceiling(bound / step) > room) step <- step * 2
  repeat {
    most <- max(1, ceiling(bound / step))
    units <- tail(step)
    if (clients * (most + units) <= grid_half) return(list(step = step, most = most))
    # A coarser grid has less noise in units, until rounding is most of what it covers.
    if (most == 1) {
      privacy_stop(
        sprintf("%.0f clients and noise up to %.0f units do not fit in words of 32 bits", clients, units),
        sprintf("clients * (integer + noise) <= %.0f", grid_half),
        "Ask for fewer clients in one sum, or add less noise"
      )
    }
    step <- step * 2
  }
}

# Numbers as whole numbers of the grid, rounded at random and right on average; 8 bytes of the stream for each.
grid_quantise <- function(grid, values, stream) {
  units <- values / grid$step
  if (!all(is.finite(units)) || any(abs(units) > grid$most * (1 + 2^-50))) {
    first <- which(!(is.finite(units) & abs(units) <= grid$most))[1]
    privacy_stop(
      sprintf("coordinate %d of a vector is %g", first, values[first]),
      sprintf("numbers of size at most %g", grid$most * grid$step),
      "Clip it before, or ask for a wider range"
    )
  }
  low <- floor(units)
  low + (stream_uniform(stream, length(units)) < units - low)
}

# The e of x = m 2^e with 1/2 <= m < 1; of a whole number, how many bits it has.
binary_exponent <- function(x) {
  exponent <- floor(log2(x)) + 1
  # A logarithm may be off by a bit beside a power of two.
  exponent + (2^exponent <= x) - (2^(exponent - 1) > x)
}
