# The client's line (bound, weigh, round, noise) and its noise, against the Python side and against the distributions that are meant.

test_that("a policy made from the file is the Python side's, to the last word that is sealed", {
  for (case in secagg_vectors()$policies) {
    policy <- policy_of(from_json(case$brief, "a brief"))
    vector <- doubles_from(case$vector)
    stream <- noise_stream(hex_bytes(case$key))
    made <- list(policy$mechanism$kind, policy$mechanism$strength)
    meant <- if (is.null(case$mechanism)) list(NULL, NULL) else case$mechanism
    expect_equal(made, meant, tolerance = 1e-15, info = case$title)
    expect_equal(policy$most, case$most, info = case$title)
    expect_identical(policy$adaptive, case$adaptive)
    if (is.null(policy$hidden)) {
      expect_identical(paste(policy$noise, mechanism_words(policy$mechanism)), case$words)
      # The Python side takes the numbers as they are here.
      expect_equal(
        policy_cover(policy, vector, case$limit, stream), doubles_from(case$covered), tolerance = 1e-15
      )
      next
    }
    expect_equal(policy_size(policy, length(vector)), case$size)
    expect_equal(policy_word(policy), case$word)
    expect_equal(policy_least(policy, case$clients), case$least, info = case$title)
    file <- from_json(case$brief, "a brief")$file
    expect_equal(fewest_members(file, policy), case$fewest, info = case$title)
    if (!is.null(case$step)) {
      terms <- policy_terms(policy, length(vector), case$limit, case$clients)
      expect_identical(
        c(terms$grid$step, terms$grid$most, terms$unit, terms$parties),
        as.double(c(case$step, case$most_units, case$unit, case$parties))
      )
      expect_equal(terms$sensitivity, case$sensitivity, tolerance = 1e-15)
    }
    expect_identical(
      bytes_hex(policy_seal(policy, vector, 120, case$limit, case$clients, stream)), case$sealed,
      info = case$title
    )
  }
})

test_that("presets weigh, and shut out, as on the Python side", {
  vectors <- secagg_vectors()
  weighs <- vapply(names(vectors$weighs), function(preset) weighs_by_examples(list(preset = preset)), NA)
  expect_identical(weighs, unlist(vectors$weighs))
  expect_identical(unlist(vectors$lonely), c("robust", "trusted"))
  expect_true(weighs_by_examples(list(weigh = list("uniform", list(samples = list(limit = 3))))))
  expect_false(weighs_by_examples(list(preset = "fedavg", weigh = list("uniform"))))
})

test_that("zCDP is the Python side's", {
  for (one in secagg_vectors()$zcdp) {
    expect_equal(rho_of_epsilon(one[[1]], one[[2]]), one[[3]], tolerance = 1e-11)
    expect_equal(epsilon_of_rho(one[[1]] / 10, one[[2]]), one[[4]], tolerance = 1e-11)
  }
})

test_that("noise of the same key is the Python side's, draw by draw", {
  for (case in secagg_vectors()$noises) {
    mechanism <- noise_mechanism(case$kind, case$strength)
    draws <- mechanism_noise(mechanism, 200, case$sensitivity, noise_stream(hex_bytes(case$key)))
    expect_equal(draws, as.double(unlist(case$draws)), tolerance = 0, info = paste(case$kind, case$strength))
    expect_equal(mechanism_tail(mechanism, case$sensitivity), as.double(case$tail), tolerance = 0)
  }
})

# The chance of a chi-square as large as that of these draws, whole numbers k with probabilities p(k); what is rare is put together.
fits <- function(draws, k, p) {
  expected <- p / sum(p) * length(draws)
  common <- expected >= 50
  observed <- tabulate(match(draws, k[common]), sum(common))
  observed <- c(observed, length(draws) - sum(observed))
  expected <- c(expected[common], length(draws) - sum(expected[common]))
  stats::pchisq(sum((observed - expected)^2 / expected), length(expected) - 1, lower.tail = FALSE)
}

test_that("a million fresh draws have the distribution that is meant", {
  draw <- function(kind, strength, sensitivity) mechanism_noise(
    noise_mechanism(kind, strength), 1e6, sensitivity, noise_stream()
  )
  k <- -400:400
  # A right sampler fails one of these in 200,000 runs.
  chances <- c(
    gaussian = fits(draw("discrete_gaussian", 2, 3.5), k, exp(-k^2 / (2 * 7^2))),
    narrow = fits(draw("discrete_gaussian", 0.5, 1), k, exp(-k^2 / (2 * 0.25))),
    real = fits(draw("gaussian", 1, 3), k, exp(-k^2 / (2 * 13))),
    laplace = fits(draw("discrete_laplace", 0.5, 2), k, exp(-abs(k) / 4)),
    rounded = fits(
      draw("laplace", 0.25, 1), k, ifelse(k == 0, 1 - exp(-1 / 8), exp(-abs(k) / 4) * sinh(1 / 8))
    )
  )
  expect_true(all(chances > 1e-6), info = paste(names(chances), chances, collapse = " "))
  # A distribution a little too wide is seen.
  expect_lt(fits(draw("discrete_gaussian", 2, 3.55), k, exp(-k^2 / (2 * 7^2))), 1e-6)
  # Wide ones are sums of several tables: mean, variance and a quantile.
  wide <- draw("discrete_gaussian", 3, 1e6) / 3e6
  expect_lt(abs(mean(wide)), 5e-3)
  expect_lt(abs(mean(wide^2) - 1), 5 * sqrt(2 / 1e6))
  expect_lt(abs(mean(wide < -1) - stats::pnorm(-1)), 5 * sqrt(0.16 * 0.84 / 1e6))
})

test_that("a draw that ties with a threshold is decided by more bits", {
  # Three equal weights: thresholds at 1/3 and 2/3, whose binary digits are 0101... and 1010...
  table <- noise_table(rep(list(openssl::bignum(1)), 3), 0)
  third <- strtoi("5555", 16L)
  # Words that equal the first threshold, and that are above it in the last 16 bits only.
  words <- matrix(c(rep(third, 4), third + 1L, rep(third, 3), third - 1L, rep(third, 3)), 4)
  key <- as.raw(1:32)
  second <- stream_limbs(noise_stream(key), 1)
  expect_equal(
    table_search(table, words, noise_stream(key)), c(as.numeric(not_above(rep(third, 4), second)), 1, 0)
  )
  # Of many ties, the second word is uniform, and two thirds of such are above the rest of the threshold.
  ties <- table_search(table, matrix(third, 4, 3000), noise_stream())
  expect_lt(abs(mean(ties) - 2 / 3), 5 * sqrt(2 / 9 / 3000))
  expect_true(not_above(rep(third, 4), rep(third, 4)))
  expect_false(not_above(rep(third, 4), c(third - 1L, rep(third, 3))))
  expect_true(not_above(c(third + 1L, third, third, third), c(third, third, third, third + 1L)))
})

test_that("parts of noise add up to the whole, and Laplace has none", {
  mechanism <- noise_mechanism("discrete_gaussian", 1)
  sums <- Reduce(`+`, lapply(1:4, function(party) mechanism_noise(mechanism, 2e5, 20, noise_stream(), 4)))
  expect_lt(abs(mean(sums^2) / 400 - 1), 5 * sqrt(2 / 2e5))
  expect_error(mechanism_noise(mechanism, 1e5, 1, noise_stream(), 30), class = "haina_privacy_error")
  expect_error(mechanism_noise(noise_mechanism("laplace", 1), 10, 1, noise_stream(), 2), "discrete_gaussian")
  expect_error(mechanism_noise(mechanism, 10, 1e15, noise_stream()), class = "haina_privacy_error")
})

test_that("rounding is right on average, and stays on the grid", {
  grid <- grid_for_sum(4, 6)
  values <- rep(c(0.3, -0.7) * grid$step, each = 2e5)
  units <- grid_quantise(grid, values, noise_stream())
  expect_setequal(unique(units), c(-1, 0, 1))
  expect_lt(abs(mean(units[1:2e5]) - 0.3), 5 * sqrt(0.21 / 2e5))
  expect_lt(abs(mean(units[-(1:2e5)]) + 0.7), 5 * sqrt(0.21 / 2e5))
  expect_lte(6 * grid$most, 2^31 - 1)
  expect_error(grid_quantise(grid, c(1, 5), noise_stream()), class = "haina_privacy_error")
  expect_error(grid_quantise(grid, c(1, NaN), noise_stream()), class = "haina_privacy_error")
})

test_that("a bounded vector is no longer than the limit, and what was within it is unchanged", {
  set.seed(3)
  for (scale in c(1e-100, 1e-3, 1, 1e100)) {
    x <- stats::rnorm(1001) * scale
    for (norm in 1:2) {
      length <- if (norm == 1) sum(abs(x / scale)) * scale else sqrt(sum((x / scale)^2)) * scale
      out <- bound_vector(x, length / 3, norm)
      expect_lte(
        if (norm == 1) sum(abs(out / scale)) * scale else sqrt(sum((out / scale)^2)) * scale, length / 3
      )
      expect_equal(out * 3, x, tolerance = 1e-12)
      expect_identical(bound_vector(x, length * 1.01, norm), x)
    }
  }
  expect_error(bound_vector(c(1, Inf), 1), class = "haina_privacy_error")
  expect_equal(tree_sum(c(1:1001, -1:-1001)), 0)
})

test_that("statistics keep 13 digits in the sum, whatever their size", {
  policy <- list(summed = TRUE, hidden = list(range = 2^40), mechanism = NULL)
  values <- c(pi, -1e-12, 123456789.123456789, -2^40, 0)
  parts <- matrix(word_values(policy_seal(policy, values, 1, NULL, 3, NULL), 64), ncol = 2)
  expect_lte(max(abs(parts[, 1] / 8 + parts[, 2] * 2^-43 - values)), 2^-44)
  expect_error(policy_seal(policy, c(1, 2^41), 1, NULL, 3, NULL), class = "haina_privacy_error")
  expect_error(policy_seal(policy, c(1, NA), 1, NULL, 3, NULL), class = "haina_privacy_error")
})

test_that("what R cannot do is refused when it joins, with the way out", {
  privacy <- function(...) list(
    payload = "average", file = list(train = list(rounds = 3), strategy = list(), privacy = list(...))
  )
  expect_error(policy_of(privacy(unit = "example", noise = "local")), "Python node")
  pld <- list(epsilon = 1, delta = 1e-5, composition = "pld")
  expect_error(
    policy_of(
      privacy(unit = "client", noise = "distributed", secure_aggregation = TRUE, clip = 1, budget = pld)
    ),
    "zcdp"
  )
  expect_error(
    policy_of(privacy(unit = "client", noise = "local", mechanism = "bessel", clip = 1)), "discrete_gaussian"
  )
  # A strength that is given needs no accountant here.
  central <- policy_of(
    privacy(
      unit = "client", noise = "central", mechanism = list(gaussian = 2), secure_aggregation = TRUE, clip = 1,
      budget = pld
    )
  )
  expect_identical(central$mechanism$strength, 2)
  expect_null(policy_of(list(file = list(privacy = NULL))))
})
