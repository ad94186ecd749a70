# The site's half of a cross-validated elastic net, as Python sites answer it (haina.learners.glm.cross_validation): a round asks at many points at
# once, of K + 1 fits by B penalties. For each the site sends the sums of the rows that the fit may see, and deviance and number of those that it may
# not. Fit 0 sees all rows, fit k all but fold k.
#
# The trap is disclosure: the sums of fit 0 less those of fit k are the sums of fold k, so each fold must be large enough to be told by itself.

# cv.glmnet's bound of a probability of a row left out, so that one row cannot decide.
SURE <- 1e-5

enough_for_folds <- function(rows, p, folds) {
  needed <- folds * max(FEWEST_ROWS, p + 1)
  if (rows < needed) {
    what <- "it has fewer than %.0f rows, and %.0f folds of them would be given away; fewer folds need fewer rows"
    haina_stop(sprintf(what, needed, folds))
  }
}

# Fold 1 to K of each row: rows are sorted by keys and dealt like cards. Eight keys of 32 bits are the SHA-256 of `haina folds SEED SITE BLOCK`, so
# that a site's folds are the same in every language.
folds_of <- function(seed, site, rows, folds) {
  # A seed beyond 2^53 is text (`from_json`).
  if (is.numeric(seed)) seed <- sprintf("%.0f", seed)
  blocks <- sprintf("haina folds %s %s %.0f", seed, site, seq_len(ceiling(rows / 8)) - 1)
  bytes <- unlist(lapply(blocks, function(block) as.integer(openssl::sha256(charToRaw(block)))))
  keys <- drop(256^(3:0) %*% matrix(bytes, 4L))[seq_len(rows)]
  fold <- numeric(rows)
  fold[order(keys)] <- (seq_len(rows) - 1) %% folds + 1
  fold
}

# The sums at all points `params` (K + 1 fits, B penalties, p coefficients, the last fastest), as `train` returns them.
fold_sums <- function(made, params, config) {
  folds <- config$learner$folds
  points <- array(params, c(ncol(made$x), length(params) / ((folds + 1) * ncol(made$x)), folds + 1))
  n <- length(made$y)
  fold <- folds_of(config$seed, config$site, n, folds)
  some <- function(rows) {
    chosen <- list(x = made$x[rows, , drop = FALSE], y = made$y[rows], offset = made$offset[rows])
    utils::modifyList(made, chosen)
  }
  answers <- lapply(0:folds, function(k) {
    seen <- some(fold != k)
    hidden <- some(fold == k)
    at <- matrix(points[, , k + 1], nrow(points))
    # In a first round all points of a fit are one.
    one <- apply(at, 2L, function(beta) paste(sprintf("%a", beta), collapse = " "))
    first <- which(!duplicated(one))
    own <- lapply(first, function(b) {
      c(glm_sums(seen, at[, b])$params, hidden_deviance(hidden, at[, b], config), length(hidden$y))
    })
    unlist(own[match(one, one[first])])
  })
  list(params = unlist(answers), n = n)
}

# Deviance of rows that a fit has not seen, as cv.glmnet takes it.
hidden_deviance <- function(hidden, beta, config) {
  if (!length(hidden$y)) return(0)
  eta <- drop(hidden$x %*% beta) + hidden$offset
  limit <- stats::qlogis(1 - SURE)
  if (config$learner$family == "binomial") eta <- pmin(pmax(eta, -limit), limit)
  hidden$law$deviance(hidden$y, eta)
}
