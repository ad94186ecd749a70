# Forests of randomForest and ranger as documents that every language can vote with.
#
# What a model object remembers of each row (outcome, prediction, votes, times out of bag, bags) is not looked at: a document is made of trees,
# importance and a number of rows, and of nothing else.
#
# Both packages write a split of a factor as a number whose bits are levels. In randomForest a bit that is set goes left, in ranger it goes right; and
# ranger's "order" mode sorts a factor's levels anew and then splits it like a number. All three become a set of levels that go left.

#' A forest as a portable document
#'
#' @param model a forest of [randomForest::randomForest()] or [ranger::ranger()] (with `probability` `TRUE` or `FALSE`), for classification or
#'   regression, with numeric columns and factors.
#' @param data the data frame that the model was grown on, for the levels of its factors. Only ranger needs it: randomForest remembers them.
#' @param columns what the features are called, as [forest_columns()] gives it, if sites have agreed on it: all features in the agreed order. The
#'   model's own if not given.
#' @param labels the agreed names of the classes, in their order; the model's own if not given.
#' @return The document, a raw vector of JSON. Thresholds and values are exact, so [forest_votes()], and Haina in Python, find the votes that the
#'   package's own `predict()` finds. It holds nothing of single rows.
#' @references Breiman (2001), "Random Forests", Machine Learning 45; Wright and Ziegler (2017), "ranger", Journal of Statistical Software 77.
#' @export
forest_document <- function(model, data = NULL, columns = NULL, labels = NULL) {
  forest_bytes(forest_of(model, data, columns, labels))
}

# The forest of a model, as `forest_read` gives it.
forest_of <- function(model, data = NULL, columns = NULL, labels = NULL) {
  grown <- if (inherits(model, "randomForest")) of_random_forest(model)
    else if (inherits(model, "ranger")) of_ranger(model, data)
    else haina_stop(sprintf("the model is of class %s", class(model)[[1L]]),
                    "a forest of randomForest or ranger")
  if (is.null(columns)) columns <- grown$columns
  if (!length(grown$labels)) labels <- character() else if (is.null(labels)) labels <- grown$labels
  unknown <- length(setdiff(grown$labels, labels))
  if (unknown) haina_stop(sprintf("%d classes of the model are not agreed", unknown), listed(labels))
  if (length(labels) == 1L) {
    haina_stop("the outcome is one class", "two classes or more",
               "Give the agreed names of all classes as labels")
  }
  places <- column_places(grown$columns, columns)
  trees <- lapply(grown$trees, placed_tree, grown = grown, places = places, labels = labels)
  part <- list(source = grown$source, rule = "x<=thr", soft = grown$soft, examples = grown$examples,
               importance = placed_importance(grown$importance, places, columns), trees = trees)
  structure(list(kind = if (length(labels)) "classification" else "regression", classes = length(labels),
                 features = sum(column_widths(columns)), columns = columns, labels = labels,
                 forests = list(part)), class = "haina_forest")
}

# Where a model's columns stand among the agreed ones: the column, its first feature, and for each agreed level its number in the model (0 if the
# model does not know it).
column_places <- function(own, columns) {
  at <- match(column_names(own), column_names(columns))
  if (anyNA(at) || length(own) != length(columns)) {
    haina_stop(sprintf("the model has the columns %s", listed(column_names(own))),
               listed(column_names(columns)))
  }
  begins <- column_begins(columns)
  lapply(seq_along(own), function(k) {
    ours <- own[[k]]$levels
    theirs <- columns[[at[[k]]]]$levels
    if (xor(length(ours), length(theirs))) {
      haina_stop(sprintf("column '%s' is %s in the model", own[[k]]$name,
                         if (length(ours)) "a factor" else "a number"),
                 if (length(ours)) "a number, as agreed" else "a factor with the agreed levels")
    }
    unknown <- length(setdiff(ours, theirs))
    if (unknown) {
      haina_stop(sprintf("%d levels of column '%s' are not agreed", unknown, own[[k]]$name), listed(theirs))
    }
    number <- match(theirs, ours, nomatch = 0L)
    list(column = at[[k]], first = begins[[at[[k]]]], numbers = number)
  })
}

# A package's tree among the agreed columns and classes. `tree$left` is a function: which of the model's levels go left at a node.
placed_tree <- function(tree, grown, places, labels) {
  start <- integer(length(tree$l))
  goes <- vector("list", length(tree$l))
  feature <- rep(1L, length(tree$l))
  after <- 1L
  for (i in which(tree$l > 0L)) {
    place <- places[[tree$column[[i]]]]
    feature[[i]] <- place$first
    if (length(place$numbers)) {
      left <- tree$left(tree$column[[i]], tree$split[[i]])
      goes[[i]] <- c(FALSE, left)[place$numbers + 1L]
      start[[i]] <- after
      after <- after + length(place$numbers)
    }
  }
  votes <- tree$votes
  if (length(labels)) {
    votes <- matrix(0, nrow(tree$votes), length(labels))
    votes[, match(grown$labels, labels)] <- tree$votes
  }
  grown_tree(tree$l, tree$r, feature, tree$split, votes, start, as.logical(unlist(goes)))
}

# Importance as shares of one; what a factor is worth is spread over its features.
placed_importance <- function(importance, places, columns) {
  importance <- pmax(importance, 0)
  if (sum(importance) > 0) importance <- importance / sum(importance)
  spread <- double(sum(column_widths(columns)))
  for (k in seq_along(places)) {
    width <- max(1L, length(places[[k]]$numbers))
    spread[places[[k]]$first - 1L + seq_len(width)] <- importance[[k]] / width
  }
  spread
}

# Whether each of the first `count` bits of a number is set; doubles hold 53 of them, which is as many levels as the packages split.
bits <- function(mask, count) mask %/% 2^(seq_len(count) - 1L) %% 2 == 1

of_random_forest <- function(model) {
  if (!model$type %in% c("classification", "regression")) {
    haina_stop(sprintf("the forest is %s", model$type), "classification or regression")
  }
  if (is.null(model$forest)) haina_stop("the forest was not kept", "keep.forest = TRUE")
  classify <- model$type == "classification"
  if (!is.null(model$coefs)) {
    haina_stop("the forest corrects its bias afterwards, which trees cannot say", "corr.bias = FALSE")
  }
  labels <- if (classify) as.character(model$classes) else character()
  if (classify && any(abs(model$forest$cutoff - 1 / length(labels)) > 1e-9)) {
    haina_stop("the forest weighs votes by cutoff, which sites must agree on", "the default cutoff")
  }
  known <- model$forest$xlevels
  columns <- lapply(names(known), function(name) {
    forest_column(name, if (is.character(known[[name]])) known[[name]])
  })
  many <- lengths(lapply(columns, `[[`, "levels"))
  # An ordered factor is split like its level numbers.
  unordered <- model$forest$ncat > 1L
  left <- function(column, split) {
    if (unordered[[column]]) bits(split, many[[column]]) else seq_len(many[[column]]) <= split
  }
  trees <- lapply(seq_len(model$ntree), function(k) {
    table <- unname(randomForest::getTree(model, k))
    leaf <- table[, 5L] == -1
    votes <- if (classify) hard_votes(ifelse(leaf, table[, 6L], 1), length(labels)) else matrix(table[, 6L])
    child <- function(side) as.integer(ifelse(leaf, 0, table[, side]))
    list(l = child(1L), r = child(2L), column = table[, 3L], split = table[, 4L], left = left, votes = votes)
  })
  importance <- model$importance
  list(source = paste("R randomForest", utils::packageVersion("randomForest")), soft = FALSE,
       examples = length(model$predicted),
       columns = columns, labels = labels, importance = unname(importance[, ncol(importance)]), trees = trees)
}

of_ranger <- function(model, data) {
  forest <- model$forest
  if (is.null(forest)) haina_stop("the forest was not kept", "write.forest = TRUE")
  type <- forest$treetype
  if (!type %in% c("Classification", "Probability estimation", "Regression")) {
    haina_stop(sprintf("the forest is for %s", tolower(type)),
               "classification, probability estimation or regression")
  }
  soft <- type == "Probability estimation"
  values <- forest$class.values
  labels <- if (type == "Regression") character()
    else if (is.null(forest$levels)) as.character(sort(values))
    else forest$levels
  # A class number of a leaf is its value; for factors, the number of its level.
  number <- function(value) if (is.null(forest$levels)) match(value, sort(values)) else as.integer(value)
  names <- forest$independent.variable.names
  columns <- ranger_columns(names, data)
  many <- lengths(lapply(columns, `[[`, "levels"))
  left <- function(column, split) {
    if (!forest$is.ordered[[column]]) return(!bits(split, many[[column]]))
    sorted <- forest$covariate.levels[[column]]
    rank <- if (is.null(sorted)) seq_len(many[[column]]) else match(columns[[column]]$levels, sorted)
    # Levels that were not in the data come last in ranger's order.
    ifelse(is.na(rank), Inf, rank) <= split
  }
  trees <- lapply(seq_len(forest$num.trees), function(k) {
    l <- as.integer(forest$child.nodeIDs[[k]][[1L]])
    leaf <- l == 0L
    ends <- function(side) ifelse(leaf, 0L, as.integer(forest$child.nodeIDs[[k]][[side]]) + 1L)
    split <- forest$split.values[[k]]
    if (soft) {
      votes <- matrix(0, length(l), length(labels))
      votes[leaf, number(values)] <- do.call(rbind, forest$terminal.class.counts[[k]][leaf])
    } else if (length(labels)) {
      votes <- hard_votes(number(ifelse(leaf, split, values[[1L]])), length(labels))
    } else {
      votes <- matrix(split)
    }
    list(l = ends(1L), r = ends(2L), column = forest$split.varIDs[[k]] + 1L, split = split, left = left,
         votes = votes)
  })
  importance <- model$variable.importance[names]
  if (is.null(importance)) importance <- double(length(names))
  list(source = paste("R ranger", utils::packageVersion("ranger")), soft = soft, examples = model$num.samples,
       columns = columns,
       labels = labels, importance = unname(importance), trees = trees)
}

# ranger remembers neither which columns were factors nor, but where it sorted them, their levels.
ranger_columns <- function(names, data) {
  if (is.null(data)) {
    haina_stop("ranger does not remember the levels of factors",
               "data, the data frame that the forest was grown on")
  }
  absent <- setdiff(names, names(data))
  if (length(absent)) {
    haina_stop(sprintf("data lacks %s", paste0("'", absent, "'", collapse = ", ")), listed(names))
  }
  forest_columns(as.data.frame(data)[names])
}
