# What each site does in a round. It is read once; print() and message() go to the log.

# params: coefficients as received, named.
# data: x (matrix with column names), y (class numbers from 0, or values), classes.
# config: round, client, learning_rate, epochs, seed, settings, ...
# What stop() says is told to the coordinator: put no patient in it.
train <- function(params, data, config) {
  x <- cbind(1, data$x)
  one_step <- isTRUE(config$settings$one_step)
  fit <- suppressWarnings(glm.fit(
    x, data$y,
    family = binomial(), start = if (one_step) params,
    control = list(maxit = if (one_step) 1 else 25)
  ))
  list(params = unname(fit$coefficients), n = nrow(x), metrics = list(deviance = fit$deviance))
}

# Optional: a row's probability of the second class (a matrix for more classes, values for regressions).
predict <- function(params, x, config) plogis(drop(cbind(1, x) %*% params))
