# The columns of a regression, the same at every site: levels, terms and names are those that the federation has agreed on, and `model.matrix` does the
# rest. The trap is a site that lacks a level: its column is all zeros, and must be there.

# What may stand in a formula that came over the network; it is read and never run before every part of it was found on this list.
FORMULA_CALLS <- c("~", "+", "-", "*", "/", "^", ":", "(", "I", "log", "log2", "log10", "log1p", "exp", "expm1", "sqrt", "abs", "factor", "offset")

# A site's rows as a list of `x`, `y` and `offset`; without a formula, by the federation's.
agreed_design <- function(data, formula, config) {
  data <- agreed_data(data, config)
  if (is.null(formula)) formula <- federation_formula(config)
  absent <- setdiff(all.vars(formula), c(names(data), "."))
  if (length(absent)) haina_stop(paste("the data lack the columns", paste(absent, collapse = ", ")), "the columns of the federation")
  frame <- tryCatch(stats::model.frame(formula, data, na.action = stats::na.fail), error = function(error) {
    haina_stop("the formula cannot be computed on all rows", "columns without missing values, and terms that R can compute")
  })
  offset <- stats::model.offset(frame)
  list(x = agreed_matrix(frame, config$names), y = agreed_outcome(stats::model.response(frame), all.vars(formula)[[1L]], config),
       offset = if (is.null(offset)) numeric(nrow(frame)) else as.double(offset))
}

# Factors with the agreed levels, and no rows with missing values.
agreed_data <- function(data, config) {
  table <- config$columns$columns
  levels <- c(config$learner$levels, table$categorical)
  for (name in setdiff(intersect(names(levels), names(data)), table$target)) {
    data[[name]] <- agreed_factor(data[[name]], unlist(levels[[name]]), name)
  }
  for (name in setdiff(intersect(unlist(table$features), names(data)), names(levels))) {
    if (!is.numeric(data[[name]]) && !is.logical(data[[name]])) {
      haina_stop(sprintf("column %s holds something else than numbers", name), "numbers", "Mend these cells, or name them in na.strings of read.csv()")
    }
  }
  if (is.null(table)) return(data)
  used <- intersect(c(unlist(table$features), table$target), names(data))
  whole <- stats::complete.cases(data[used])
  if (!all(whole) && !identical(table$missing, "drop")) {
    haina_stop("values are missing", "rows without missing values", sprintf("Fill them in, or leave the rows out: %d here", sum(!whole)))
  }
  data[whole, , drop = FALSE]
}

agreed_factor <- function(cells, levels, name) {
  if (is.logical(cells)) cells <- logical_levels(cells, levels)
  cells <- as.character(cells)
  strange <- sum(!is.na(cells) & !cells %in% levels)
  if (strange) {
    # A level may be a person's, and how many have it as well: only the first part of an error travels.
    haina_stop(sprintf("column %s holds something else", name), paste(levels, collapse = ", "),
               sprintf("It does in %d rows here: mend them, leave them out, or have the federation agree on more levels", strange))
  }
  factor(cells, levels)
}

# read.csv() takes a column of nothing but F (or of "true") for logical, and Python writes True where R writes TRUE: the level that was meant, where
# there is one such level.
logical_levels <- function(cells, levels) {
  meant <- function(spellings) {
    found <- intersect(spellings, levels)
    if (length(found) == 1L) found else spellings[[1L]]
  }
  ifelse(cells, meant(c("TRUE", "True", "true", "T")), meant(c("FALSE", "False", "false", "F")))
}

# The federation's own formula; where it has none, all agreed columns.
federation_formula <- function(config) {
  said <- config$learner$formula
  if (!is.null(said)) return(safe_formula(said))
  table <- config$columns$columns
  if (is.null(table)) haina_stop("the federation's rows have no column names to make a formula from", "formula = y ~ x1 + x2")
  features <- lapply(table$features, as.name)
  right <- Reduce(function(a, b) call("+", a, b), features)
  if (isFALSE(config$learner$intercept)) right <- call("-", right, 1)
  stats::as.formula(call("~", as.name(table$target), right), env = formula_world())
}

# A formula of the network: each part is on the list and in its place, and it makes no more terms than a regression may have. It is counted before R
# spells it out, for `terms()` takes time and room that double with each factor, and no limit of time stops it.
safe_formula <- function(text) {
  tree <- if (is.character(text) && nchar(text) <= 4000L) tryCatch(str2lang(text), error = function(error) NULL)
  good <- is.call(tree) && identical(tree[[1L]], as.name("~")) && length(tree) == 3L && known_number(tree[[2L]]) && known_terms(tree[[3L]])
  if (!good) {
    haina_stop("the federation's formula holds what may not stand in one", paste("columns, numbers and", paste(FORMULA_CALLS, collapse = " ")))
  }
  if (most_terms(tree[[3L]]) > MOST_TERMS) {
    haina_stop("the federation's formula makes too many terms", sprintf("up to about %d", MOST_TERMS))
  }
  stats::as.formula(tree, env = formula_world())
}

# Terms that a formula may make, and what `.` counts as.
MOST_TERMS <- 1000L
DOT_TERMS <- 30L
# What may stand inside a term, with the numbers of its arguments: arithmetic of columns, nothing that makes a vector of another length.
ARITHMETIC <- list("+" = 1:2, "-" = 1:2, "*" = 2L, "/" = 2L, "^" = 2L, "(" = 1L, I = 1L, log = 1:2, log2 = 1L, log10 = 1L, log1p = 1L, exp = 1L,
                   expm1 = 1L, sqrt = 1L, abs = 1L)
TERM_OPERATORS <- list("+" = 1:2, "-" = 1:2, "*" = 2L, "/" = 2L, ":" = 2L, "^" = 2L, "(" = 1L)

known_number <- function(part) {
  if (is.name(part) || is.numeric(part)) return(TRUE)
  called_as(part, ARITHMETIC) && all(vapply(as.list(part)[-1L], known_number, NA))
}

known_terms <- function(part) {
  if (is.name(part) || is.numeric(part)) return(TRUE)
  if (called_as(part, TERM_OPERATORS)) return(all(vapply(as.list(part)[-1L], known_terms, NA)))
  if (called_as(part, list(factor = 1L))) return(is.name(part[[2L]]))
  if (called_as(part, list(offset = 1L))) return(known_number(part[[2L]]))
  known_number(part)
}

called_as <- function(part, list) {
  is.call(part) && is.name(part[[1L]]) && as.character(part[[1L]]) %in% names(list) &&
    (length(part) - 1L) %in% list[[as.character(part[[1L]])]]
}

most_terms <- function(part) {
  if (!called_as(part, TERM_OPERATORS)) return(if (identical(part, as.name("."))) DOT_TERMS else 1)
  inner <- vapply(as.list(part)[-1L], most_terms, 0)
  if (length(inner) == 1L) return(inner)
  operator <- as.character(part[[1L]])
  power <- if (is.numeric(part[[3L]])) min(part[[3L]], 20) else 20
  min(MOST_TERMS + 1, switch(operator, "-" = inner[[1L]], "+" = sum(inner), "^" = inner[[1L]]^power, sum(inner) + prod(inner)))
}

# Where a formula of the network is computed: nothing is there but the list. A factor has its levels already.
formula_world <- function() {
  world <- new.env(parent = emptyenv())
  for (name in setdiff(FORMULA_CALLS, c("factor", "offset"))) assign(name, get(name, baseenv()), world)
  assign("offset", stats::offset, world)
  assign("factor", identity, world)
  # `model.frame` makes a list of the variables in this place.
  assign("list", base::list, world)
  world
}

# The matrix in the federation's order. A factor's column is called `name=level` where the federation has no formula, and `namelevel` in R.
agreed_matrix <- function(frame, wanted) {
  terms <- stats::delete.response(stats::terms(frame))
  factors <- names(Filter(function(column) is.factor(column) || is.character(column) || is.logical(column), frame))
  factors <- intersect(factors, rownames(attr(terms, "factors")))
  x <- stats::model.matrix(terms, frame, contrasts.arg = stats::setNames(rep(list("contr.treatment"), length(factors)), factors))
  called <- colnames(x)
  if (!setequal(called, wanted)) {
    called <- gsub("`", "", called, fixed = TRUE)
    for (name in factors) {
      levels <- levels(as.factor(frame[[name]]))
      made <- match(called, paste0(gsub("`", "", name, fixed = TRUE), levels))
      called[!is.na(made)] <- paste0(gsub("`", "", name, fixed = TRUE), "=", levels[made[!is.na(made)]])
    }
  }
  if (!setequal(called, wanted) || anyDuplicated(called)) {
    # What it makes stays here: text in a column of numbers would make a coefficient of each cell.
    haina_stop(sprintf("the formula makes %d coefficients, or others than the federation's", length(called)),
               cut_text(paste(wanted, collapse = ", "), 400L), "All sites must make the same columns")
  }
  unname(x[, match(wanted, called), drop = FALSE])
}

# The outcome as numbers: classes by their agreed places, from 0.
agreed_outcome <- function(y, name, config) {
  table <- config$columns$columns
  classes <- unlist(if (is.null(table) || identical(name, table$target)) config$columns$classes else config$learner$levels[[name]])
  if (is.logical(y)) y <- as.double(y)
  if (!is.null(classes) && !(is.numeric(y) && is.null(table) && all(y %in% (seq_along(classes) - 1)))) {
    y <- match(as.character(y), classes) - 1
    if (anyNA(y)) haina_stop("the outcome is another class in some rows", paste(classes, collapse = ", "), sprintf("In %d rows here", sum(is.na(y))))
  }
  if (!is.numeric(y)) haina_stop("the outcome is no number", "numbers, as the federation says")
  as.double(y)
}
