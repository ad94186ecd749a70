# Forests as JSON, exactly as `haina.learners.forest.document` has it: there is the description of the format.
#
# The trap is what a document from the network may hold. Its size and nesting are limited before it is parsed, and every index, number, set and length
# is checked before it is used.
#
# In memory a tree counts from 1: `l` and `r` are the children (0 at leaves), `f` the feature, `thr` the bound, `start` where the levels of a split
# factor begin in `goes` (0 for none), `votes` a row for each node, and `depth` the steps to the farthest leaf.

FOREST_RULES <- c("float32(x)<=thr", "x<=thr")
MOST_FOREST_BYTES <- 2^28
MOST_TREES <- 1e5
MOST_NODES <- 1e7
MOST_DEPTH <- 1000L
# A document nests to 7; more is an attack on the parser.
MOST_NESTING <- 16L

forest_stop <- function(what, allowed = "", remedy = "") {
  haina_stop(what, allowed, remedy, class = "haina_layout_error")
}

#' Read a forest
#'
#' @param document the bytes of a forest (JSON of format `haina-forest`, version 1 or 2), or a forest that was read before, which is returned.
#' @return An object of class `haina_forest`. A document that is damaged, too large or says what cannot be is refused.
#' @seealso [forest_document()] for the forests of randomForest and ranger, [forest_votes()], [forest_predict()], [forest_merge()]
#' @export
forest_read <- function(document) {
  if (inherits(document, "haina_forest")) return(document)
  if (!is.raw(document)) {
    forest_stop(sprintf("a forest is of class %s", class(document)[[1L]]), "a raw vector of JSON")
  }
  if (length(document) > MOST_FOREST_BYTES) {
    forest_stop(sprintf("a forest of %.0f bytes", length(document)),
                sprintf("at most %.0f", MOST_FOREST_BYTES))
  }
  parsed <- forest_parsed(document)
  version <- parsed[["version"]]
  if (!identical(parsed[["format"]], "haina-forest") || !(identical(version, 1L) || identical(version, 2L))) {
    forest_stop("this JSON is no forest", "format 'haina-forest', version 1 or 2")
  }
  classes <- forest_count(parsed, "classes", 2^20)
  features <- forest_count(parsed, "features", 2^24)
  kind <- if (classes) "classification" else "regression"
  if (!identical(parsed[["kind"]], kind) || classes == 1L || features == 0L) {
    forest_stop(sprintf("a forest with %d classes and %d features, or of another kind", classes, features),
                "classification with at least 2 classes, or regression with 0; at least 1 feature")
  }
  forest <- list(kind = kind, classes = classes, features = features, columns = list(), labels = character())
  if (version == 2L) {
    forest$columns <- lapply(parsed[["columns"]], read_column)
    forest$labels <- as.character(unlist(forest_texts(parsed[["labels"]])))
  }
  checked_names(forest)
  parts <- forest_list(parsed, "forests", MOST_TREES)
  forest$forests <- lapply(parts, read_part, forest = forest)
  structure(forest, class = "haina_forest")
}

#' @export
print.haina_forest <- function(x, ...) {
  trees <- vapply(x$forests, function(part) length(part$trees), 0L)
  cat(sprintf("A %s forest of %d trees on %d features%s\n", x$kind, sum(trees), x$features,
              if (x$classes) sprintf(", for %d classes", x$classes) else ""))
  for (part in x$forests) {
    cat(sprintf("  %d trees by %s on %.0f rows\n", length(part$trees), plain(part$source), part$examples))
  }
  invisible(x)
}

read_column <- function(entry) {
  entry <- forest_object(entry, "a column")
  forest_column(forest_texts(list(entry[["name"]]))[[1L]], unlist(forest_texts(entry[["levels"]])))
}

checked_names <- function(forest) {
  if (length(forest$columns) && sum(column_widths(forest$columns)) != forest$features) {
    forest_stop(sprintf("the columns are %d features", sum(column_widths(forest$columns))),
                sprintf("%d, like the trees", forest$features))
  }
  if (length(forest$labels) && length(forest$labels) != forest$classes) {
    forest_stop(sprintf("%d classes have names", length(forest$labels)), sprintf("all %d", forest$classes))
  }
  for (said in c(list(column_names(forest$columns), forest$labels), lapply(forest$columns, `[[`, "levels"))) {
    if (anyDuplicated(said) || any(!nzchar(said) | nchar(said) > 1000L)) {
      forest_stop("a column, class or level has no name, a very long one, or one that another has",
                  "different names of 1 to 1000 characters")
    }
  }
}

read_part <- function(entry, forest) {
  entry <- forest_object(entry, "a forest")
  soft <- entry[["soft"]]
  if (!isTRUE(entry[["rule"]] %in% FOREST_RULES) || !(isTRUE(soft) || isFALSE(soft)) ||
      !is.character(entry[["source"]]) || (soft && !forest$classes)) {
    forest_stop("a forest with another rule, or without soft or source",
                paste0("rule ", paste(FOREST_RULES, collapse = " or "),
                       "; soft true or false (false for regression); source text"))
  }
  importance <- forest_numbers(forest_list(entry, "importance", forest$features, exact = TRUE))
  trees <- forest_list(entry, "trees", MOST_TREES)
  if (!length(trees) || any(importance < 0)) {
    forest_stop("a forest without trees, or with negative importance", "at least one tree")
  }
  firsts <- stats::setNames(column_widths(forest$columns), column_begins(forest$columns))
  firsts <- firsts[lengths(lapply(forest$columns, `[[`, "levels")) > 0L]
  list(source = entry[["source"]], rule = entry[["rule"]], soft = soft,
       examples = forest_count(entry, "examples", 2^48), importance = importance,
       trees = lapply(trees, read_tree, soft = soft, forest = forest, firsts = firsts))
}

read_tree <- function(entry, soft, forest, firsts) {
  entry <- forest_object(entry, "a tree")
  left <- forest_indices(forest_list(entry, "l", MOST_NODES), -1, MOST_NODES)
  count <- length(left)
  if (!count) forest_stop("a tree without nodes", "at least one node")
  right <- forest_indices(forest_list(entry, "r", count, TRUE), -1, MOST_NODES)
  leaf <- left < 0
  # What a writer leaves at the fields that a leaf does not use is nobody's business.
  used <- function(key, unused) replace(forest_list(entry, key, count, TRUE), unused, list(0L))
  feature <- forest_indices(used("f", leaf), 0, forest$features - 1) + 1L
  sets <- read_sets(entry, feature, leaf, firsts)
  bounds <- forest_numbers(used("thr", leaf | sets$start > 0L))
  cells <- used("v", !leaf)
  if (!forest$classes) {
    votes <- matrix(forest_numbers(cells))
  } else if (!soft) {
    votes <- hard_votes(forest_indices(cells, 0, forest$classes - 1) + 1L, forest$classes)
  } else {
    votes <- matrix(0, count, forest$classes)
    if (!all(lengths(cells[leaf]) == forest$classes & vapply(cells[leaf], is.list, NA))) {
      forest_stop("a leaf votes something else", sprintf("%d shares", forest$classes))
    }
    votes[leaf, ] <- matrix(forest_numbers(unlist(cells[leaf], recursive = FALSE)), ncol = forest$classes,
                            byrow = TRUE)
    if (any(votes < 0) || any(abs(rowSums(votes[leaf, , drop = FALSE]) - 1) > 1e-9)) {
      forest_stop("the shares of a leaf do not sum to 1", "numbers >= 0 with sum 1")
    }
  }
  grown_tree(left + 1L, right + 1L, feature, bounds, votes, sets$start, sets$goes)
}

hard_votes <- function(class, classes) {
  votes <- matrix(0, length(class), classes)
  votes[cbind(seq_along(class), class)] <- 1
  votes
}

read_sets <- function(entry, feature, leaf, firsts) {
  start <- integer(length(leaf))
  if (is.null(entry[["set"]])) return(list(start = start, goes = logical()))
  set <- forest_list(entry, "set", length(leaf), TRUE)
  set[leaf] <- list("")
  odd <- !vapply(set, function(text) is.character(text) && length(text) == 1L, NA)
  set[odd] <- list("?")
  set <- unlist(set)
  splits <- which(set != "")
  width <- unname(firsts[as.character(feature[splits])])
  wrong <- is.na(width) | nchar(set[splits]) != width | grepl("[^01]", set[splits])
  if (any(wrong)) {
    at <- splits[wrong][[1L]]
    forest_stop(sprintf("the set of levels at feature %d is '%s'", feature[[at]] - 1L,
                        cut_text(set[[at]], 80L)),
                if (is.na(width[wrong][[1L]])) "no set, as no factor begins there"
                else sprintf("%d digits 0 or 1, one for each level", width[wrong][[1L]]))
  }
  start[splits] <- c(1L, cumsum(width) + 1L)[seq_along(splits)]
  list(start = start, goes = strsplit(paste(set[splits], collapse = ""), "")[[1L]] == "1")
}

# A checked tree; children come after their parent and have one parent each, so there are no cycles to walk in.
grown_tree <- function(l, r, f, thr, votes, start = integer(length(l)), goes = logical()) {
  leaf <- l == 0L
  inner <- which(!leaf)
  if (any(leaf != (r == 0L)) || any(l[inner] <= inner) || any(r[inner] <= inner) ||
      !identical(sort(c(l[inner], r[inner])), seq_along(l)[-1L])) {
    forest_stop("the nodes do not make a tree",
                "two children or none, each after its parent and with one parent")
  }
  level <- integer(length(l))
  for (i in inner) level[c(l[[i]], r[[i]])] <- level[[i]] + 1L
  if (max(level) > MOST_DEPTH) {
    forest_stop(sprintf("a tree is %d levels deep", max(level)), sprintf("at most %d", MOST_DEPTH))
  }
  f[leaf] <- 1L
  thr[leaf | start > 0L] <- 0
  votes[inner, ] <- 0
  list(l = l, r = r, f = f, thr = thr, start = start, goes = goes, votes = votes, depth = max(level))
}
