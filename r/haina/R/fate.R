#' Write rows for FATE
#'
#' Writes a CSV file that FATE takes up: `id,y,x0,x1,...`, each number with 17 digits, which every double survives. (`write.csv` keeps 15, with which
#' nine doubles in ten lose their last bits.) The bytes are those of `haina fate export`.
#'
#' Factors and texts become one column for each level after the first, as in `glm()`. Sites must agree on the levels: give the factor all of them
#' at every site. FATE cuts lines at commas and knows no quotes, so columns are called x0, x1, ... and identifiers may hold neither.
#'
#' @param data a data frame without gaps.
#' @param file where to write; overwritten.
#' @param label the column of outcomes, 0 or 1 (or `FALSE` and `TRUE`).
#' @param id the column of identifiers; `NULL` counts the rows.
#' @param features the columns to write, in order; all others if `NULL`.
#' @param first the number of the first row, where rows are counted.
#' @return The names of x0, x1, ... in that order, invisibly.
#' @export
#' @examples
#' rows <- data.frame(age = c(61.5, 70.1), ward = factor(c("a", "b")), died = c(0, 1))
#' file <- tempfile(fileext = ".csv")
#' fate_export(rows, file, label = "died")
#' readLines(file)
fate_export <- function(data, file, label = "y", id = NULL, features = NULL, first = 0) {
  if (!is.data.frame(data) || !nrow(data)) haina_stop("data is no table with rows", "a data frame with at least one row")
  if (is.null(features)) features <- setdiff(names(data), c(label, id))
  absent <- setdiff(c(label, id, features), names(data))
  if (length(absent)) haina_stop(paste0("data has no column \"", absent[[1L]], "\""), paste(names(data), collapse = ", "))
  both <- intersect(features, c(label, id))
  if (length(both)) haina_stop(paste0("column \"", both[[1L]], "\" is a feature and label or identifier too"))
  gaps <- features[vapply(data[features], anyNA, NA)]
  if (length(gaps)) haina_stop(paste0("column \"", gaps[[1L]], "\" has gaps"), "numbers and levels", "Fill them, or leave these rows out")
  columns <- fate_columns(data[features])
  if (ncol(columns) < 2L) haina_stop("there is one column of numbers", "at least two: HomoLR refuses fewer")
  if (!all(is.finite(columns))) {
    bad <- colnames(columns)[!apply(is.finite(columns), 2L, all)]
    haina_stop(paste0("column \"", bad[[1L]], "\" holds a number that is not finite"), "finite numbers")
  }
  y <- suppressWarnings(as.numeric(data[[label]]))
  if (is.factor(data[[label]]) || anyNA(y) || !all(y %in% c(0, 1))) {
    haina_stop(paste0("column \"", label, "\" is not all 0 and 1"), "0 or 1 (HomoLR is logistic regression)")
  }
  key <- if (is.null(id)) sprintf("%.0f", first + seq_len(nrow(data)) - 1) else trimws(as.character(data[[id]]))
  if (anyNA(key) || any(!nzchar(key) | grepl("[,\"'\r\n]", key))) {
    haina_stop("an identifier cannot be written for FATE", "text without commas and quotes")
  }
  cells <- matrix(formatC(columns, digits = 17L, format = "g", width = 1L), nrow(columns))
  lines <- do.call(paste, c(list(key, sprintf("%.0f", y)), lapply(seq_len(ncol(cells)), function(j) cells[, j]), sep = ","))
  header <- paste(c("id", "y", paste0("x", seq_len(ncol(cells)) - 1L)), collapse = ",")
  # Binary, so that lines end alike on every system.
  connection <- file(file, "wb")
  on.exit(close(connection))
  writeLines(enc2utf8(c(header, lines)), connection, sep = "\n", useBytes = TRUE)
  invisible(colnames(columns))
}

# The columns of numbers that stand for some columns: their own, or one for each level after the first.
fate_columns <- function(table) {
  text <- vapply(table, is.character, NA)
  table[text] <- lapply(table[text], factor)
  usable <- vapply(table, function(column) is.numeric(column) || is.logical(column) || is.factor(column), NA)
  if (!all(usable)) {
    haina_stop(paste0("column \"", names(table)[!usable][[1L]], "\" is neither numbers nor levels"), "numbers, TRUE and FALSE, factors")
  }
  table[] <- lapply(table, function(column) if (is.logical(column)) as.numeric(column) else column)
  parts <- lapply(names(table), function(name) {
    column <- table[[name]]
    if (!is.factor(column)) return(matrix(as.numeric(column), dimnames = list(NULL, name)))
    levels <- levels(column)[-1L]
    made <- vapply(levels, function(level) as.numeric(column == level), numeric(length(column)))
    matrix(made, length(column), dimnames = list(NULL, paste0(name, levels, recycle0 = TRUE)))
  })
  do.call(cbind, parts)
}
