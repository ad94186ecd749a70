# The trainer of forests: what a site grows, what leaves it, and what stays.
#
# The trap is the model object. It holds the outcome, the prediction and the votes of every row, and which rows were in which bag. It stays here, with
# the diagnosis made of it; what leaves is a document of trees, and counts of at least `min_cell` rows.

#' A trainer that grows a random forest
#'
#' For federations with `learner = "forest"`: the site grows a forest on its own rows, in R, and sends its trees; the coordinator puts the trees of all
#' sites into one forest that votes. Sites that use Python take part in the same federation. One round is the whole of it.
#'
#' What leaves: thresholds, levels, votes of leaves, importance of columns, the number of rows, and numbers of the out-of-bag diagnosis: counts
#' of the confusion matrix that are `min_cell` or more, or the mean squared error. A node with a child of fewer than `min_leaf` rows becomes a
#' leaf before the trees leave. Outcomes, predictions, votes and bags of rows never leave; they are kept for the site (`forest_diagnosis()`).
#'
#' @param data a data frame with this site's rows; factors may have any of the agreed levels.
#' @param formula the outcome and the columns to predict from, such as `y ~ .`; by default those that the federation has agreed on.
#' @param ntree trees, at most the federation's `trees`.
#' @param mtry columns tried at each split; no more than there are.
#' @param importance `TRUE` to measure the importance of columns (randomForest: by permutation; ranger: by impurity) and send it with the metrics.
#' @param min_cell fewest rows behind a number of the diagnosis; the federation's, where that is more.
#' @param engine the package that grows the trees.
#' @param min_leaf fewest rows in a leaf; the federation's, where that is more.
#' @param quiet `TRUE` to show no diagnosis at the site.
#' @param ... further arguments of [randomForest::randomForest()] or [ranger::ranger()], such as `probability = TRUE`.
#' @return A function for [join()]: it returns `document` (raw), `n` and `metrics`.
#' @seealso [forest_diagnosis()], [forest_predict()]
#' @export
#' @examples
#' trainer <- train_random_forest(iris, Species ~ ., ntree = 50)
train_random_forest <- function(data, formula = NULL, ntree = 100, mtry = 4, importance = TRUE, min_cell = 10,
                                engine = c("randomForest", "ranger"), min_leaf = 5, quiet = FALSE, ...) {
  engine <- match.arg(engine)
  if (!is.data.frame(data)) haina_stop(paste("data is", class(data)[[1L]]), "a data frame")
  for (name in c("ntree", "mtry", "min_cell", "min_leaf")) {
    value <- get(name)
    if (!is.numeric(value) || length(value) != 1L || !isTRUE(value >= 1 && value == trunc(value))) {
      haina_stop(sprintf("%s is %s", name, cut_text(format(value), 80L)), "a whole number >= 1")
    }
  }
  kept <- new.env(parent = emptyenv())
  trainer <- function(params, config) {
    agreed <- agreed_forest(config, ntree)
    rows <- forest_site(data, formula, config, agreed)
    least <- max(min_leaf, agreed$min_leaf)
    model <- with_seed(config,
                       grown_model(engine, rows, ntree, min(mtry, ncol(rows$x)), importance, least, ...))
    kept$diagnosis <- diagnosed(model, rows)
    if (!quiet) shown_diagnosis(kept$diagnosis)
    list(
      document = forest_bytes(sendable(model, rows, least)), n = nrow(rows$x),
      metrics = sent_diagnosis(kept$diagnosis, rows, max(min_cell, agreed$min_cell), importance)
    )
  }
  structure(trainer, examples = nrow(data), diagnosis = kept)
}

#' What a site learnt of its own forest
#'
#' @param trainer what [train_random_forest()] gave, after a round.
#' @return A list that stays at the site: `model` (the package's object), `predicted` (out-of-bag prediction of each row), `confusion` (counts of
#'   classes by out-of-bag votes) or `error` (mean squared), and `importance`. `NULL` before the first round.
#' @export
forest_diagnosis <- function(trainer) {
  kept <- attr(trainer, "diagnosis")
  if (is.null(kept)) haina_stop("this is no trainer of forests", "what train_random_forest() gives")
  kept$diagnosis
}

grown_model <- function(engine, rows, ntree, mtry, importance, min_leaf, ...) {
  if (!requireNamespace(engine, quietly = TRUE)) {
    haina_stop(sprintf("the package %s is not installed", engine),
               remedy = sprintf("install.packages(\"%s\")", engine))
  }
  # Both packages refuse classes that have no rows.
  y <- if (is.factor(rows$y)) droplevels(rows$y) else rows$y
  if (engine == "randomForest") {
    return(randomForest::randomForest(rows$x, y, ntree = ntree, mtry = mtry, importance = importance,
                                      nodesize = min_leaf, keep.inbag = TRUE, ...))
  }
  ranger::ranger(x = rows$x, y = y, num.trees = ntree, mtry = mtry,
                 importance = if (importance) "impurity" else "none",
                 min.node.size = min_leaf, keep.inbag = TRUE, num.threads = 1,
                 seed = sample.int(.Machine$integer.max, 1L), ...)
}

# The forest that may leave.
sendable <- function(model, rows, min_leaf) {
  forest <- forest_of(model, rows$x, rows$columns, rows$labels)
  outcomes <- if (is.factor(rows$y)) hard_votes(as.integer(rows$y), nlevels(rows$y)) else matrix(rows$y)
  inbag <- if (inherits(model, "ranger")) model$inbag.counts
    else lapply(seq_len(ncol(model$inbag)), function(k) model$inbag[, k])
  pruned(forest, rows$coded, outcomes, inbag, min_leaf)
}

diagnosed <- function(model, rows) {
  predicted <- if (inherits(model, "ranger")) model$predictions else model$predicted
  voted <- predicted
  # Probabilities of classes; a row that was in every bag has none.
  if (is.matrix(predicted)) {
    voted <- colnames(predicted)[ifelse(is.na(predicted[, 1L]), NA, max.col(predicted, "first"))]
  }
  importance <- if (inherits(model, "ranger")) model$variable.importance else permuted(model$importance)
  found <- list(model = model, predicted = predicted, importance = importance)
  if (is.factor(rows$y)) {
    found$confusion <- table(truth = rows$y, voted = factor(as.character(voted), levels(rows$y)))
  } else {
    seen <- is.finite(predicted)
    found$error <- mean((predicted - rows$y)[seen]^2)
    found$seen <- sum(seen)
  }
  found
}

# The importance by permutation, where it was measured.
permuted <- function(importance) {
  by <- intersect(c("MeanDecreaseAccuracy", "%IncMSE"), colnames(importance))
  importance[, if (length(by)) by else ncol(importance)]
}

shown_diagnosis <- function(found) {
  told <- if (is.null(found$confusion)) sprintf("Out-of-bag mean squared error: %.6g", found$error)
    else c("Out-of-bag confusion (this site only):", utils::capture.output(print(found$confusion)))
  ranked <- sort(found$importance, decreasing = TRUE)
  told <- c(told, if (length(ranked)) c("Importance:", sprintf("  %-20s %.4g", names(ranked), ranked)))
  message(paste(told, collapse = "\n"))
}

# What is said of the diagnosis: as Python's learner says it, and the importance of columns.
sent_diagnosis <- function(found, rows, min_cell, importance) {
  said <- list()
  if (is.null(found$confusion)) {
    if (found$seen >= min_cell) said$oob_mse <- found$error
  } else {
    cells <- which(found$confusion >= min_cell, arr.ind = TRUE)
    names <- sprintf("confusion/%d/%d", cells[, 1L] - 1L, cells[, 2L] - 1L)
    said <- stats::setNames(as.list(as.double(found$confusion[cells])), names)
  }
  if (importance && nrow(rows$x) >= min_cell) {
    worth <- found$importance[is.finite(found$importance)]
    said <- c(said, stats::setNames(as.list(unname(worth)), cut_names(names(worth))))
  }
  # A report holds 100 numbers.
  utils::head(said, 100L)
}

cut_names <- function(names) substr(paste0("importance/", names), 1L, 200L)

# The same task grows the same trees at this site, and other trees at another; R's own random numbers go on as if nothing had been drawn.
with_seed <- function(config, call) {
  digest <- openssl::sha256(charToRaw(paste(config$seed, config$round, config$site)))
  world <- globalenv()
  before <- world[[".Random.seed"]]
  on.exit(if (is.null(before)) rm(".Random.seed", envir = world) else world[[".Random.seed"]] <- before)
  set.seed(sum(as.integer(digest[1:4]) * 256^(0:3)) %% 2^31, kind = "Mersenne-Twister",
           normal.kind = "Inversion", sample.kind = "Rejection")
  call
}
