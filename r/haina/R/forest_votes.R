# Votes: what a forest says of rows. All rows go down a tree together, one level of nodes at a time.

#' Votes of a forest
#'
#' @param document a forest: the bytes that [forest_document()] or [forest_merge()] gives, or what [forest_read()] makes of them.
#' @param newdata a data frame with the forest's columns (factors as factors or text, their levels in any order), or a numeric matrix of its
#'   features as Python encodes them (a factor as one column of zeros and ones for each level).
#' @return A matrix with one row for each row of `newdata`: votes for each class (shares of a vote, from soft trees), or one column with the sum
#'   of the trees' values for regression. Votes are summed tree by tree and forest by forest, as in Python, so both languages find the same numbers
#'   to the last bit.
#' @references Breiman (2001), "Random Forests", Machine Learning 45.
#' @seealso [forest_predict()]
#' @export
forest_votes <- function(document, newdata) {
  forest <- forest_read(document)
  rows <- forest_rows(forest, newdata)
  total <- matrix(0, nrow(rows$x), max(1L, forest$classes))
  for (part in forest$forests) total <- total + part_votes(part, rows)
  if (forest$classes) colnames(total) <- class_names(forest)
  total
}

#' Predictions of a forest
#'
#' @inheritParams forest_votes
#' @param type `"response"`: the class with the most votes, or the mean value; `"prob"`: shares of the votes (classification).
#' @return A factor of class names (numbers from 0 where the classes have no names), or a numeric vector; a matrix for `"prob"`. A tie goes to the
#'   first class, here and in Python; `predict()` of randomForest and ranger draws lots.
#' @seealso [forest_votes()]
#' @export
forest_predict <- function(document, newdata, type = c("response", "prob")) {
  type <- match.arg(type)
  forest <- forest_read(document)
  if (type == "prob" && !forest$classes) {
    haina_stop("a regression forest has no classes", "type = \"response\"")
  }
  votes <- forest_votes(forest, newdata)
  trees <- sum(vapply(forest$forests, function(part) length(part$trees), 0L))
  shares <- if (trees) votes / trees else votes + if (forest$classes) 1 / forest$classes else 0
  if (type == "prob") return(shares)
  if (!forest$classes) return(shares[, 1L])
  factor(class_names(forest)[max.col(shares, "first")], class_names(forest))
}

#' Several forests as one
#'
#' @param documents a list of forests, as bytes or as [forest_read()] gives them.
#' @return The merged document, a raw vector. Its votes are exactly the sums of the votes of its parts. Forests with other features, classes, names
#'   or levels than the first are refused.
#' @export
forest_merge <- function(documents) {
  if (!is.list(documents) || !length(documents)) {
    haina_stop("there is no forest to merge", "a list of at least one")
  }
  parts <- lapply(documents, forest_read)
  whole <- parts[[1L]]
  for (part in parts[-1L]) {
    if (part$classes != whole$classes || part$features != whole$features) {
      haina_stop(
        sprintf("a forest with %d classes and %d features", part$classes, part$features),
        sprintf("%d classes and %d features, like the first", whole$classes, whole$features),
        class = "haina_layout_error"
      )
    }
    whole <- agreed_names(whole, part)
    whole$forests <- c(whole$forests, part$forests)
  }
  forest_bytes(whole)
}

class_names <- function(forest) {
  if (length(forest$labels)) forest$labels else sprintf("%d", seq_len(forest$classes) - 1L)
}

part_votes <- function(part, rows) {
  x <- if (part$rule == "float32(x)<=thr") in_single(rows$x) else rows$x
  total <- 0
  for (tree in part$trees) total <- total + tree$votes[tree_leaves(tree, x, rows$codes), , drop = FALSE]
  total
}

# Doubles rounded to single precision, as scikit-learn does before it compares.
in_single <- function(x) {
  x[] <- readBin(writeBin(as.double(x), raw(), 4L), "double", length(x), 4L)
  x
}

# The node in which each row ends.
tree_leaves <- function(tree, x, codes) {
  node <- rep(1L, nrow(x))
  for (step in seq_len(tree$depth)) {
    cell <- cbind(seq_len(nrow(x)), tree$f[node])
    left <- x[cell] <= tree$thr[node]
    split <- which(tree$start[node] > 0L)
    if (length(split)) {
      code <- codes[cell[split, , drop = FALSE]]
      if (anyNA(code)) {
        haina_stop("the columns of a factor are not one 1 among zeros",
                   "one-hot columns, in the agreed order")
      }
      left[split] <- tree$goes[tree$start[node[split]] - 1L + code]
    }
    below <- ifelse(left, tree$l[node], tree$r[node])
    node <- ifelse(below > 0L, below, node)
  }
  node
}
