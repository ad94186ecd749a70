# How many neighbours a member needs, how many shares open a secret, and how many must agree: the smallest numbers that keep the promises.
#
# Bell, Bonawitz, Gascon, Lepoint & Raykova 2020, "Secure Single-Server Aggregation with (Poly)Logarithmic Overhead", as in
# `haina.privacy.secagg.plan` in Python, which says why in full. With c of n members corrupt and d dropping out, chance may let some member have t
# corrupt neighbours (2^-40), corrupt and gone ones cut the ring (2^-40), or some member keep fewer than t neighbours (2^-30).
#
# All members must find the same numbers, for they are part of what they sign. So tails are exact integers (`openssl::bignum`), on every machine.

# A group of so many members or fewer is a complete graph.
secagg_whole <- 16
# Bits of the chances that are taken with secrecy, and with the success of a round.
secagg_secrecy <- 40
secagg_success <- 30
# A sum of two tells each of the two what the other sent.
secagg_fewest <- 3

#' The cheapest numbers for a group.
#'
#' @param members n, how many have advertised.
#' @param corrupt,dropout shares of them, in [0, 0.5).
#' @param fewest the fewest members whose sum may ever be opened.
#' @return a list: degree, threshold, least.
#' @noRd
secagg_plan <- function(members, corrupt = 0.1, dropout = 0.1, fewest = secagg_fewest) {
  if (members < fewest) {
    privacy_stop(
      paste("a secure sum of", members, "members is asked for"),
      paste(fewest, "or more: of a sum of two, each of the two learns what the other sent"),
      "Wait for more members"
    )
  }
  bad <- corrupted(members, corrupt)
  gone <- floor(dropout * members)
  agreeing <- max(fewest, (members + bad) %/% 2 + 1)
  degrees <- c(if (members > secagg_whole) seq(4, members - 2, by = 2), members - 1)
  for (degree in if (agreeing <= members - gone) degrees) {
    if (degree == members - 1) {
      threshold <- max(2, min((2 * members) %/% 3 + 1, members - max(1, gone)))
      kept <- bad < threshold && threshold <= members - gone
    } else {
      threshold <- safe_threshold(members, degree, corrupt)
      kept <- ring_connected(members, degree, bad + gone) && ring_recoverable(
        members, degree, threshold, gone
      )
    }
    least <- max(agreeing, threshold)
    if (kept && least <= members - gone) return(list(degree = degree, threshold = threshold, least = least))
  }
  privacy_stop(
    sprintf(
      "no secure sum of %.0f members stands %.0f drop-outs with %.0f of them corrupt", members, gone, bad
    ),
    paste("so many that", agreeing, "stay to agree on the sum"),
    "Make groups larger, or expect fewer corrupt members or drop-outs"
  )
}

# c, how many of so many members may be corrupt: at least one, unless there are two members only.
corrupted <- function(members, corrupt) max(as.numeric(members > 2), floor(corrupt * members))

# The smallest t >= 2 such that no member has t corrupt neighbours, but with chance 2^-40.
safe_threshold <- function(members, degree, corrupt) {
  bad <- corrupted(members, corrupt)
  if (degree >= members - 1) return(max(2, bad + 1))
  max(2, rare_count(members - 1, bad, degree, whole(members) * two_to(secagg_secrecy)))
}

# How many uploaders two stretches of degree / 2 members must have between them, so that they cannot all be corrupt, but with chance 2^-40. 0 for a
# complete graph, which cannot be cut.
secagg_together <- function(members, degree, corrupt) {
  if (degree >= members - 1) return(0)
  pairs <- whole(members) * whole(members - degree + 1)
  rare_count(members, corrupted(members, corrupt), degree, pairs * two_to(secagg_secrecy - 1))
}

# Refuse a setting that keeps less than `secagg_plan` promises for its share of corrupt members: "weak".
check_strength <- function(setting, members, fewest) {
  agreeing <- max(fewest, (members + corrupted(members, setting$corrupt)) %/% 2 + 1)
  threshold <- safe_threshold(members, setting$degree, setting$corrupt)
  if (setting$threshold < threshold || setting$least < agreeing) {
    secagg_refuse(
      "weak",
      sprintf(
        "%.0f shares open a secret and %.0f of %.0f members a sum", setting$threshold, setting$least, members
      ),
      sprintf(
        "%.0f and %.0f or more, for %.0f %% corrupt members", threshold, agreeing, 100 * setting$corrupt
      ),
      "The coordinator must plan with the terms that the members know"
    )
  }
}

# The smallest s such that `odds` * P(at least s of `drawn` are marked) <= 1.
rare_count <- function(population, marked, drawn, odds) {
  ways <- openssl::bignum(0)
  all <- choose_exactly(population, drawn)
  for (s in rev(seq(0, min(marked, drawn)))) {
    ways <- ways + choose_exactly(marked, s) * choose_exactly(population - marked, drawn - s)
    if (ways * odds > all) return(s + 1)
  }
  0
}

# n^2 / 2 P(k given members are all removed) <= 2^-40.
ring_connected <- function(members, degree, removed) {
  if (degree > removed) return(TRUE)
  falling <- function(n) product(n - seq_len(degree) + 1)
  falling(removed) * whole(members) * whole(members) * two_to(secagg_secrecy - 1) <= falling(members)
}

# n P(fewer than t of k neighbours stay) <= 2^-30.
ring_recoverable <- function(members, degree, threshold, gone) {
  stay <- members - 1 - gone
  ways <- openssl::bignum(0)
  for (s in seq_len(threshold) - 1) ways <- ways + choose_exactly(stay, s) * choose_exactly(gone, degree - s)
  ways * whole(members) * two_to(secagg_success) <= choose_exactly(members - 1, degree)
}

choose_exactly <- function(n, k) {
  if (k < 0 || k > n) return(openssl::bignum(0))
  k <- min(k, n - k)
  product(n - seq_len(k) + 1) %/% product(seq_len(k))
}

product <- function(numbers) {
  # Pairs first, so that a big number meets a small one seldom.
  if (length(numbers) == 0) return(openssl::bignum(1))
  if (length(numbers) == 1) return(whole(numbers))
  half <- length(numbers) %/% 2
  product(numbers[seq_len(half)]) * product(numbers[-seq_len(half)])
}

# A whole number below 2^53 as a big one, and a power of two.
whole <- function(value) openssl::bignum(sprintf("%.0f", value))
two_to <- function(bits) openssl::bignum(c(as.raw(2^(bits %% 8)), raw(bits %/% 8)))
