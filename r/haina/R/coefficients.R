# Trainers whose coefficients are averaged: fitted at the site by the package that people know, and nothing but the coefficients goes up.
# The federation has `learner = "vector"`, whose names the coefficients must have.

#' A trainer that fits a lasso or elastic net
#'
#' Fits `glmnet::glmnet()` on this site's rows and hands in the coefficients; the federation averages them. This is no exact fit of the pooled rows: for
#' that, `learner = "glm"` with `alpha` sends sums ([train_glm()]). The site's fit does not depend on the model that comes in, so one round is enough.
#'
#' @param data a data frame with this site's rows.
#' @param formula an outcome and terms, such as `y ~ x1 + x2`; the names of the columns must be those of the federation's coefficients.
#' @param alpha 1 for the lasso, 0 for ridge, between them the elastic net.
#' @param lambda the penalty, one number, the same at all sites.
#' @param family as for glmnet: `"gaussian"`, `"binomial"` or `"poisson"`.
#' @param epsilon `NULL`, or the privacy parameter of Laplace noise on the coefficients, for each round; see [laplace()].
#' @param sensitivity how much one change of the rows moves the coefficients, in L1 norm; needed with `epsilon`, and yours to justify.
#' @param budget `NULL`, or a [privacy_budget()] that each round's `epsilon` is taken from before anything leaves.
#' @param ... further arguments of `glmnet::glmnet()`.
#' @return A function for [join()]. It reports coefficients and the number of rows, and nothing else.
#' @export
train_glmnet <- function(data, formula, alpha = 1, lambda, family = "gaussian", epsilon = NULL, sensitivity = NULL, budget = NULL, ...) {
  need("glmnet")
  if (!is.numeric(lambda) || length(lambda) != 1L || !isTRUE(lambda >= 0)) haina_stop("lambda is no penalty", "one number >= 0")
  if (!is.numeric(alpha) || length(alpha) != 1L || !isTRUE(alpha >= 0 && alpha <= 1)) haina_stop("alpha is no mixture", "one number in [0, 1]")
  frame <- stats::model.frame(formula, data)
  x <- stats::model.matrix(stats::terms(frame), frame)
  intercept <- "(Intercept)" %in% colnames(x)
  y <- stats::model.response(frame)
  fitted <- function(params, config) {
    fit <- glmnet::glmnet(x[, colnames(x) != "(Intercept)", drop = FALSE], y, family = family, alpha = alpha, lambda = lambda,
                          intercept = intercept, ...)
    coefficients <- as.matrix(glmnet::coef.glmnet(fit))[, 1L]
    if (intercept) coefficients else coefficients[-1L]
  }
  coefficient_trainer(fitted, nrow(x), epsilon, sensitivity, budget)
}

#' A trainer over caret
#'
#' Fits `caret::train()` on this site's rows and hands in the numbers that `extract` takes from the fit, which the federation averages.
#'
#' @inheritParams train_glmnet
#' @param method a method of caret, such as `"lm"`, `"glm"` or `"glmnet"`.
#' @param extract a function from the fit to a named numeric vector; by default the coefficients of linear methods. A federation cannot average
#'   what is no vector of one meaning: trees need [train_random_forest()].
#' @param ... further arguments of `caret::train()`, such as `trControl` and `tuneGrid`.
#' @return A function for [join()].
#' @export
train_caret <- function(data, formula, method, ..., extract = NULL, epsilon = NULL, sensitivity = NULL, budget = NULL) {
  need("caret")
  if (is.null(extract)) extract <- linear_coefficients
  fitted <- function(params, config) extract(caret::train(formula, data = data, method = method, ...))
  coefficient_trainer(fitted, nrow(data), epsilon, sensitivity, budget)
}

linear_coefficients <- function(fit) {
  model <- fit$finalModel
  values <- if (inherits(model, "glmnet")) {
    need("glmnet")
    as.matrix(glmnet::coef.glmnet(model, s = fit$bestTune$lambda))[, 1L]
  } else {
    tryCatch(stats::coef(model), error = function(error) NULL)
  }
  if (!is.numeric(values) || !is.null(dim(values))) {
    haina_stop(paste("the method", fit$method, "has no coefficients to average"), "linear methods, or extract = function(fit) <named numbers>")
  }
  values
}

# A trainer of coefficients, with noise where that was asked for.
coefficient_trainer <- function(fitted, rows, epsilon, sensitivity, budget) {
  if (!is.null(epsilon) && is.null(sensitivity)) {
    haina_stop("epsilon is given, and no sensitivity", "sensitivity = how much one change of the rows moves the coefficients, in L1 norm")
  }
  if (is.null(epsilon) && !is.null(budget)) haina_stop("a budget is given, and no epsilon to take from it", "epsilon = 0.5, sensitivity = 1")
  trainer <- function(params, config) {
    coefficients <- fitted(params, config)
    if (!is.null(epsilon)) {
      if (!is.null(budget)) budget$spend(epsilon, paste0(config$federation, "/", config$round))
      coefficients <- stats::setNames(laplace(coefficients, sensitivity = sensitivity, epsilon = epsilon), names(coefficients))
    }
    list(params = coefficients, n = rows)
  }
  structure(trainer, examples = rows)
}

need <- function(package) {
  if (!requireNamespace(package, quietly = TRUE)) {
    haina_stop(paste("the package", package, "is not installed"), remedy = sprintf("install.packages(\"%s\")", package))
  }
}
