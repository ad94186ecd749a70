# Columns of a forest: what its features are called, in the order that all sites have agreed on.
#
# A forest counts features as Python encodes them: a factor takes one for each level. R keeps factors whole, so a table is read twice: `x`, the numbers
# and the zeros and ones, and `codes`, the level numbers at the first feature of each factor.

#' The columns of a table
#'
#' @param data a data frame of features, without the outcome.
#' @return A list with `name` and `levels` for each column; `levels` is empty for numbers. Levels are those of a factor, or the sorted values of a
#'   character column.
#' @seealso [forest_document()], which takes it.
#' @export
forest_columns <- function(data) {
  lapply(names(data), function(name) {
    cells <- data[[name]]
    if (is.character(cells)) cells <- factor(cells)
    if (!is.factor(cells) && !is.numeric(cells) && !is.logical(cells)) {
      haina_stop(sprintf("column '%s' is of class %s", name, class(cells)[[1L]]),
                 "numbers, logical values, factors or text")
    }
    forest_column(name, levels(cells))
  })
}

forest_column <- function(name, levels = NULL) list(name = name, levels = as.character(levels))

# Names in an error, as many as fit.
listed <- function(names) cut_text(paste(names, collapse = ", "), 400L)

column_names <- function(columns) vapply(columns, `[[`, "", "name")

column_widths <- function(columns) vapply(columns, function(column) max(1L, length(column$levels)), 0L)

# The first feature of each column, from 1.
column_begins <- function(columns) {
  ends <- cumsum(column_widths(columns))
  c(1L, ends + 1L)[seq_along(columns)]
}

# Whether columns, levels and classes are those of `theirs`, wherever both say them; returns what is known.
agreed_names <- function(ours, theirs) {
  for (what in c("columns", "labels")) {
    if (length(ours[[what]]) && length(theirs[[what]]) && !identical(ours[[what]], theirs[[what]])) {
      said <- if (what == "labels") ours$labels else column_names(ours$columns)
      haina_stop(
        sprintf("a forest names other %s, or in another order",
                if (what == "labels") "classes" else "columns or levels"),
        listed(said),
        "Grow it again with the names and the order that the federation has agreed on",
        class = "haina_layout_error"
      )
    }
    if (!length(ours[[what]])) ours[[what]] <- theirs[[what]]
  }
  ours
}

# Rows as trees ask for them: `x`, `[N, p]` numbers, and `codes`, `[N, p]` level numbers from 1 at the first feature of each factor.
forest_rows <- function(forest, newdata) {
  if (is.data.frame(newdata) && length(forest$columns)) return(rows_of_table(forest$columns, newdata))
  x <- if (is.data.frame(newdata)) data.matrix(newdata) else as.matrix(newdata)
  if (!is.numeric(x) && !is.logical(x)) {
    haina_stop("the rows are not numbers", "a numeric matrix, or a data frame with named columns")
  }
  storage.mode(x) <- "double"
  if (ncol(x) != forest$features) {
    haina_stop(sprintf("the rows have %d columns", ncol(x)), sprintf("%d, as the forest", forest$features))
  }
  if (!all(is.finite(x))) haina_stop("a feature is not finite", "finite numbers", "Fill in missing values")
  codes <- matrix(0L, nrow(x), ncol(x))
  begins <- column_begins(forest$columns)
  for (k in which(lengths(lapply(forest$columns, `[[`, "levels")) > 0L)) {
    run <- x[, begins[[k]] - 1L + seq_along(forest$columns[[k]]$levels), drop = FALSE]
    odd <- rowSums(run == 0 | run == 1) < ncol(run) | rowSums(run) != 1
    # Rows may be anything where no tree splits a factor; such codes are never asked for.
    codes[, begins[[k]]] <- ifelse(odd, NA_integer_, max.col(run, "first"))
  }
  list(x = x, codes = codes)
}

rows_of_table <- function(columns, data) {
  absent <- setdiff(column_names(columns), names(data))
  if (length(absent)) {
    haina_stop(sprintf("the table lacks %s", paste0("'", absent, "'", collapse = ", ")),
               listed(column_names(columns)))
  }
  begins <- column_begins(columns)
  x <- codes <- matrix(0, nrow(data), sum(column_widths(columns)))
  for (k in seq_along(columns)) {
    name <- columns[[k]]$name
    levels <- columns[[k]]$levels
    cells <- data[[name]]
    if (length(levels)) {
      code <- match(as.character(cells), levels)
      if (anyNA(code)) {
        strange <- sum(is.na(code))
        # Of an error only the first part travels, and how many rows hold a level may be a person.
        haina_stop(sprintf("column '%s' holds something else", name), listed(levels),
                   sprintf("It does in %d of %d rows here", strange, length(code)))
      }
      codes[, begins[[k]]] <- code
      x[cbind(seq_along(code), begins[[k]] - 1L + code)] <- 1
    } else {
      if (!is.numeric(cells) && !is.logical(cells)) {
        haina_stop(sprintf("column '%s' does not hold numbers", name), "numbers")
      }
      if (!all(is.finite(cells))) {
        haina_stop(sprintf("column '%s' is not finite", name), "finite numbers", "Fill in missing values")
      }
      x[, begins[[k]]] <- as.double(cells)
    }
  }
  list(x = x, codes = codes)
}
