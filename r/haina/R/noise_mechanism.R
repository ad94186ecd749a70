# Mechanisms: how much noise, of which distribution, covers a vector of whole numbers, and what one release costs (`haina.privacy.mechanisms`).
#
# A mechanism is a list of `kind` and `strength`: the noise multiplier of "gaussian" and "discrete_gaussian", the epsilon of "laplace" and
# "discrete_laplace". A real mechanism is drawn as its discrete twin, with what keeps the proof: Gaussian noise has 4 units^2 of variance more,
# Laplace noise is a real number rounded.
#
# The trap is the sensitivity, which is that of the whole vector, in units of the grid, after rounding.

# Below this, a draw and a whole number under it add up exactly in a double.
noise_largest <- 2^52
# Largest distance from the whole noise that the parties' noises may have, over all coordinates.
noise_distance <- 1e-9

noise_kinds <- c(gaussian = 2, discrete_gaussian = 2, laplace = 1, discrete_laplace = 1)

noise_mechanism <- function(kind, strength) {
  if (!isTRUE(strength > 0 && is.finite(strength))) {
    privacy_stop(paste0("the strength of ", kind, " noise is ", strength), "a finite number > 0")
  }
  list(kind = kind, strength = as.double(strength), norm = noise_kinds[[kind]])
}

#' Noise for a vector of whole numbers.
#'
#' @param size coordinates.
#' @param sensitivity largest norm of the difference that one client makes to the whole numbers, in units, > 0.
#' @param stream random bits, never used before.
#' @param parties the noise of one of so many, whose sum is the whole; Gaussian kinds only.
#' @noRd
mechanism_noise <- function(mechanism, size, sensitivity, stream, parties = 1, tables = new.env()) {
  if (mechanism_tail(mechanism, sensitivity, parties) >= noise_largest) {
    privacy_stop(
      "noise may be larger than R's exact numbers", "less than 4.5e15 units",
      "Ask for less noise, or a coarser grid"
    )
  }
  if (mechanism$norm == 1) {
    return(
      laplace_noise(
        size, mechanism_scale(mechanism, sensitivity, parties), mechanism$kind == "laplace", stream, tables
      )
    )
  }
  variance <- mechanism_variance(mechanism, sensitivity, parties)
  rough <- mechanism$strength^2 * sensitivity^2 / parties
  if (parties > 1 && size * distance_of_sum(rough, parties) > noise_distance) {
    privacy_stop(
      sprintf(
        "the noise of one of %.0f parties has a standard deviation of %.3g units", parties, sqrt(rough)
      ),
      "about 2 to 3 or more, so that the sum is as good as one draw", "Take a finer grid, or fewer parties"
    )
  }
  gaussian_noise(size, variance, stream, tables)
}

# No draw of one party is larger than this, in units.
mechanism_tail <- function(mechanism, sensitivity, parties = 1) {
  if (mechanism$norm == 1) {
    return(laplace_reach(mechanism_scale(mechanism, sensitivity, parties), mechanism$kind == "laplace"))
  }
  gaussian_reach(mechanism_variance(mechanism, sensitivity, parties))
}

# What one release costs: a list of epsilon (NULL where there is no finite one), delta and rho (Bun & Steinke 2016).
mechanism_cost <- function(mechanism) {
  strength <- mechanism$strength
  if (mechanism$norm == 1) return(list(epsilon = strength, delta = 0, rho = strength^2 / 2))
  list(epsilon = NULL, delta = 0, rho = 0.5 / strength^2)
}

# In words, for ledgers: "Discrete Gaussian noise (noise multiplier 1.1)".
mechanism_words <- function(mechanism) {
  kind <- gsub("_", " ", mechanism$kind)
  kind <- gsub("\\b([gl])", "\\U\\1", sub("^(.)", "\\U\\1", kind, perl = TRUE), perl = TRUE)
  sprintf(
    "%s noise (%s %g)", kind, if (mechanism$norm == 1) "epsilon" else "noise multiplier", mechanism$strength
  )
}

mechanism_variance <- function(mechanism, sensitivity, parties) {
  square <- function(value) fraction_times(fraction_of(value), fraction_of(value))
  more <- fraction(whole(if (mechanism$kind == "gaussian") 4 else 0))
  whole_variance <- fraction_plus(fraction_times(square(mechanism$strength), square(sensitivity)), more)
  fraction_over(whole_variance, fraction(whole(parties)))
}

mechanism_scale <- function(mechanism, sensitivity, parties) {
  if (parties != 1) {
    privacy_stop(
      sprintf("Laplace noise is to be made by %.0f parties", parties),
      "one: there is no Laplace noise in parts that are safe by themselves",
      'Write mechanism = "discrete_gaussian", or noise = "central"'
    )
  }
  fraction_over(fraction_of(sensitivity), fraction_of(mechanism$strength))
}
