# Exact sums of a generalised linear model, as the federation's learner "glm" adds them (haina.strategy.sums): at the coefficients that come in,
#
#     gradient X'(y - mu) [p]  |  upper triangle of X'WX, row by row [p (p + 1) / 2]  |  deviance, rows, sum of y, saturated log-likelihood
#
# The sum over sites equals what one table with all rows would have given, so the fit is `glm()` of the pooled rows. The trap is disclosure: the sums of
# few rows give the rows away, so a site with fewer than max(10, p + 1) of them sends nothing, and no message travels that shows a cell.

# Families with their canonical links (McCullagh and Nelder 1989, sec. 2.5). The deviance is written with the linear predictor, so that it is finite
# also where a fitted probability rounds to 0 or 1.
FAMILIES <- list(
  gaussian = list(
    mean = identity, variance = function(mu) rep(1, length(mu)), deviance = function(y, eta) sum((y - eta)^2),
    saturated = function(y) 0, allows = is.finite, outcomes = "finite numbers"
  ),
  binomial = list(
    mean = stats::plogis, variance = function(mu) mu * (1 - mu),
    deviance = function(y, eta) {
      rest <- log1p(exp(-abs(eta)))
      2 * sum(xlogy(y, y) + xlogy(1 - y, 1 - y) + y * (rest + pmax(-eta, 0)) + (1 - y) * (rest + pmax(eta, 0)))
    },
    saturated = function(y) 0, allows = function(y) y %in% c(0, 1), outcomes = "0 and 1"
  ),
  poisson = list(
    mean = function(eta) exp(pmin(eta, 200)), variance = identity,
    deviance = function(y, eta) {
      eta <- pmin(eta, 200)
      2 * sum(xlogy(y, y) - y * eta - (y - exp(eta)))
    },
    saturated = function(y) sum(xlogy(y, y) - y - lgamma(y + 1)),
    allows = function(y) is.finite(y) & y >= 0, outcomes = "finite numbers >= 0"
  )
)

xlogy <- function(x, y) ifelse(x > 0, x * log(ifelse(x > 0, y, 1)), 0)

# Fewer rows than this are described too closely by any statistic.
FEWEST_ROWS <- 10L
# Fewer rows than this in a cell or a level are single persons to who knows a little more.
MIN_CELL <- 5
# Rows summed at once.
BLOCK_ROWS <- 16384L

#' A trainer for exact generalised linear models
#'
#' For federations with `learner = "glm"`: each round the site sends the gradient, the Hessian and the deviance at the federation's coefficients, summed
#' over its rows. The coordinator adds the sums of all sites and takes Newton's step, so that the result is `glm()` of all rows together, to rounding.
#'
#' A site with fewer than `max(10, p + 1)` rows sends nothing, where p is the number of coefficients. Sums of many rows are safer and not safe: secure
#' aggregation (`[privacy] secure_aggregation` in the federation file) hides a single site's.
#'
#' @param data a data frame with this site's rows.
#' @param formula which columns make the coefficients; by default those that the federation has agreed on. Names must come out as the federation's.
#' @param family `"gaussian"`, `"binomial"` or `"poisson"`; by default the federation's, which a given one must equal.
#' @return A function for [join()].
#' @export
#' @examples
#' trainer <- train_glm(data.frame(y = c(0, 1), x = c(1.5, 2)), y ~ x, "binomial")
train_glm <- function(data, formula = NULL, family = NULL) {
  if (!is.data.frame(data)) haina_stop(paste("data is", class(data)[[1L]]), "a data frame")
  family <- family_name(family)
  made <- NULL
  trainer <- function(params, config) {
    if (is.null(made)) made <<- glm_design(data, formula, family, config)
    if (is.null(config$learner$folds)) glm_sums(made, as.double(params)) else fold_sums(made, as.double(params), config)
  }
  structure(trainer, examples = nrow(data))
}

family_name <- function(family) {
  if (is.function(family)) family <- family()
  if (inherits(family, "family")) {
    if (!family$link %in% c("identity", "logit", "log")) haina_stop(paste("the link is", family$link), "identity, logit or log")
    family <- family$family
  }
  if (!is.null(family) && !family %in% names(FAMILIES)) {
    haina_stop(paste("family is", family), paste(names(FAMILIES), collapse = ", "))
  }
  family
}

# The design matrix, the outcomes and what is added to the predictor, once: a list of `x`, `y`, `offset` and `law`.
glm_design <- function(data, formula, family, config) {
  if (!identical(config$learner$kind, "glm")) {
    haina_stop("the federation does not add sums of a glm", "learner = \"glm\" under [model]",
               "Give join() a trainer that fits the federation's model")
  }
  agreed <- config$learner$family
  if (!is.null(family) && family != agreed) haina_stop(paste("family is", family), paste0(agreed, ", as the federation says"))
  law <- FAMILIES[[agreed]]
  if (is.null(law)) haina_stop(paste("the family is", agreed), paste(names(FAMILIES), collapse = ", "))
  made <- agreed_design(data, formula, config)
  needed <- max(FEWEST_ROWS, ncol(made$x) + 1L)
  if (!is.null(config$learner$folds)) enough_for_folds(nrow(made$x), ncol(made$x), config$learner$folds)
  if (nrow(made$x) < needed) haina_stop(sprintf("it has fewer than %d rows, which its answer would give away", needed))
  if (!all(law$allows(made$y))) haina_stop(sprintf("some of its rows cannot be used (allowed: %s)", law$outcomes))
  if (!all(is.finite(made$x), is.finite(made$offset))) haina_stop("some of its rows cannot be used (allowed: finite numbers)")
  marked <- cbind(made$x, if (identical(agreed, "binomial")) made$y)
  if (is.null(config$learner$folds)) {
    refuse_rare(marked, config$learner)
  } else {
    part <- folds_of(config$seed, config$site, nrow(marked), config$learner$folds)
    for (k in seq_len(config$learner$folds)) refuse_rare(marked[part == k, , drop = FALSE], config$learner)
  }
  c(made, list(law = law))
}

# Stop where a column of zeros and ones is the mark of a few persons: its products with the others are sums over them alone.
refuse_rare <- function(columns, learner) {
  least <- if (is.null(learner$min_cell)) MIN_CELL else learner$min_cell
  if (least <= 1) return(invisible())
  ones <- colSums(columns == 1)
  zeros <- colSums(columns == 0)
  fewest <- pmin(ones, zeros)
  if (any(ones + zeros == nrow(columns) & fewest > 0 & fewest < least)) {
    withheld(
      sprintf("a level of its factors or outcomes has fewer than %.0f rows, which its sums would give away", least),
      sprintf("levels of 0 or at least %.0f rows", least),
      "Merge levels; or hide single sites by [privacy] secure_aggregation and write check = \"sum\""
    )
  }
}

# The sums at `beta`, as `train` returns them.
glm_sums <- function(made, beta) {
  p <- ncol(made$x)
  gradient <- numeric(p)
  hessian <- matrix(0, p, p)
  deviance <- 0
  for (start in seq.int(1L, nrow(made$x), BLOCK_ROWS)) {
    rows <- start:min(start + BLOCK_ROWS - 1L, nrow(made$x))
    x <- made$x[rows, , drop = FALSE]
    y <- made$y[rows]
    eta <- drop(x %*% beta) + made$offset[rows]
    mu <- made$law$mean(eta)
    gradient <- gradient + drop(crossprod(x, y - mu))
    hessian <- hessian + crossprod(x, x * made$law$variance(mu))
    deviance <- deviance + made$law$deviance(y, eta)
  }
  # The lower triangle by columns is the upper one by rows.
  triangle <- hessian[lower.tri(hessian, diag = TRUE)]
  n <- length(made$y)
  list(params = c(gradient, triangle, deviance, n, sum(made$y), made$law$saturated(made$y)), n = n,
       metrics = list(loss_before = deviance / (2 * n)))
}
