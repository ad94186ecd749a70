# A site's rows as its trees need them: the agreed columns, levels and classes, in the agreed order.

# Fewer rows than this are described too closely by any forest.
FEWEST_FOREST_ROWS <- 10L

# What the federation says of its forest.
agreed_forest <- function(config, ntree) {
  agreed <- config$learner
  if (!identical(agreed$kind, "forest")) {
    haina_stop("the federation does not collect forests", "learner = \"forest\" under [model]",
               "Give join() a trainer that fits its model")
  }
  if (ntree > agreed$trees) {
    haina_stop(sprintf("ntree is %.0f", ntree), sprintf("at most %.0f, as the federation says", agreed$trees))
  }
  agreed
}

# `x` with the agreed columns in order, `y` a factor or numbers, `columns` and `labels` as agreed, and `coded`, the rows as trees ask for them.
forest_site <- function(data, formula, config, agreed) {
  table <- config$columns$columns
  target <- if (is.null(formula)) table$target else all.vars(formula)[[1L]]
  if (is.null(target)) haina_stop("the federation's rows have no column names", "formula = y ~ x1 + x2")
  columns <- lapply(agreed$columns, function(column) forest_column(column$name, unlist(column$levels)))
  wanted <- if (is.null(formula)) column_names(columns) else formula_columns(formula, data)
  if (!length(columns)) columns <- forest_columns(data[wanted])
  if (!setequal(column_names(columns), wanted)) {
    haina_stop(paste("the formula asks for", listed(wanted)),
               listed(column_names(columns)), "A forest splits columns as they are")
  }
  absent <- setdiff(c(column_names(columns), target), names(data))
  if (length(absent)) {
    haina_stop(paste("the data lack the columns", paste(absent, collapse = ", ")),
               "the columns of the federation")
  }
  whole <- stats::complete.cases(data[c(column_names(columns), target)])
  if (!all(whole) && !identical(table$missing, "drop")) {
    haina_stop("values are missing", "rows without missing values",
               sprintf("Fill them in, or leave the rows out: %d here", sum(!whole)))
  }
  data <- data[whole, , drop = FALSE]
  if (nrow(data) < FEWEST_FOREST_ROWS) {
    haina_stop(sprintf("it has fewer than %d rows, which its answer would give away", FEWEST_FOREST_ROWS))
  }
  # Whoever has other levels, or text where numbers are agreed, is told so here, by counts.
  coded <- rows_of_table(columns, data)
  x <- data[column_names(columns)]
  for (column in columns) {
    if (length(column$levels)) x[[column$name]] <- factor(as.character(x[[column$name]]), column$levels)
  }
  labels <- as.character(unlist(agreed$labels))
  if (!length(labels) && agreed$classes) labels <- sprintf("%d", seq_len(agreed$classes) - 1L)
  list(x = x, y = forest_outcome(data[[target]], labels), columns = columns, labels = labels, coded = coded)
}

forest_outcome <- function(y, labels) {
  if (!length(labels)) {
    if (!is.numeric(y) || !all(is.finite(y))) {
      haina_stop("some of its rows cannot be used (allowed: outcomes that are finite numbers)")
    }
    return(as.double(y))
  }
  y <- factor(as.character(y), labels)
  if (anyNA(y)) haina_stop("the outcome is another class in some rows", listed(labels), sprintf("In %d rows here", sum(is.na(y))))
  if (length(unique(y)) < 2L) haina_stop("its outcomes cannot be used (allowed: two classes or more)")
  y
}

# The columns on the right of a formula, as they are called in the table.
formula_columns <- function(formula, data) {
  terms <- stats::delete.response(stats::terms(formula, data = data))
  gsub("`", "", attr(terms, "term.labels"), fixed = TRUE)
}
