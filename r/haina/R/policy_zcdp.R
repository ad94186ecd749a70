# Zero-concentrated differential privacy: epsilon at a delta, and back. As `haina.privacy.zcdp` in Python.

#' The epsilon at a delta that rho-zCDP implies.
#'
#' The infimum over alpha > 1 of alpha rho + log(1 - 1 / alpha) + (log(1 / delta) - log(alpha)) / (alpha - 1): Canonne, Kamath & Steinke 2020,
#' proposition 12, solved for epsilon.
#' @param rho 0 or more.
#' @param delta in (0, 1).
#' @noRd
epsilon_of_rho <- function(rho, delta) {
  if (rho == 0) return(0)
  bound <- function(logarithm) {
    more <- exp(logarithm)
    (1 + more) * rho - log1p(1 / more) - (log(delta) + log1p(more)) / more
  }
  # Any alpha gives a bound. The best is near 1 + sqrt(log(1 / delta) / rho).
  middle <- log(-log(delta) / rho) / 2
  max(0, golden_least(bound, middle - 10, middle + 10))
}

# The largest rho whose zCDP implies (epsilon, delta).
rho_of_epsilon <- function(epsilon, delta) {
  low <- 0
  high <- epsilon + 1
  while (epsilon_of_rho(high, delta) <= epsilon) high <- high * 2
  while (high - low > 1e-13 * high) {
    middle <- (low + high) / 2
    if (epsilon_of_rho(middle, delta) <= epsilon) low <- middle else high <- middle
  }
  low
}

# The minimum of a function that falls and then rises, by golden section.
golden_least <- function(f, low, high) {
  golden <- (sqrt(5) - 1) / 2
  left <- high - golden * (high - low)
  right <- low + golden * (high - low)
  at_left <- f(left)
  at_right <- f(right)
  while (high - low > 1e-9) {
    if (at_left <= at_right) {
      high <- right
      right <- left
      at_right <- at_left
      left <- high - golden * (high - low)
      at_left <- f(left)
    } else {
      low <- left
      left <- right
      at_left <- at_right
      right <- low + golden * (high - low)
      at_right <- f(right)
    }
  }
  min(at_left, at_right)
}
