# Descriptive statistics of all sites' rows together, as the federation's learner "summary" asks for them (haina.learners.summary): each round asks by
# what the last one learnt, and each site answers with sums over its rows. What is asked is in `config$learner`, what is known in `params`, whose
# first number is the stage.

#' A trainer for exact summaries
#'
#' For federations with `learner = "summary"`: answers whatever the federation file asks, be it a description with quantiles, a table, a histogram,
#' correlations or an area under the ROC curve, with counts and sums over this site's rows. The federation's answer is that of all rows together.
#'
#' A site with fewer than 10 rows, or fewer than 10 values in a column, sends nothing; nor does one whose table or bins hold 1 to `min_cell` - 1
#' rows somewhere, unless the federation hides single sites and checks the sum alone.
#'
#' @param data a data frame with this site's rows.
#' @return A function for [join()].
#' @export
#' @examples
#' trainer <- train_summary(data.frame(age = c(60, 50), ward = c("a", "b")))
train_summary <- function(data) {
  if (!is.data.frame(data)) haina_stop(paste("data is", class(data)[[1L]]), "a data frame")
  rows <- NULL
  trainer <- function(params, config) {
    if (is.null(rows)) rows <<- summary_rows(data, config)
    answer <- SUMMARIES[[config$learner$asks]](rows, as.double(params), config$learner)
    list(params = answer, n = rows$n)
  }
  structure(trainer, examples = nrow(data))
}

# What is asked about, once: a list of `n` and, of the columns that are asked about, `codes` (levels by their places, from 0) or `values`
# (`[n, c]`, NA where one is missing), and for ROC curves the `case` of each row.
summary_rows <- function(data, config) {
  learner <- config$learner
  if (!identical(learner$kind, "summary") || !isTRUE(learner$asks %in% names(SUMMARIES))) {
    kinds <- paste(names(SUMMARIES), collapse = ", ")
    haina_stop("the federation does not ask for a summary that is known here",
               paste("learner = \"summary\" under [model], of kind", kinds))
  }
  data <- agreed_data(data, config)
  columns <- unlist(learner$columns)
  absent <- setdiff(c(columns, learner$outcome), names(data))
  if (length(absent)) {
    haina_stop(paste("the data lack the columns", paste(absent, collapse = ", ")), "the columns of the federation")
  }
  enough_rows(nrow(data), FEWEST_ROWS)
  places <- function(name) agreed_outcome(data[[name]], name, config)
  rows <- list(n = nrow(data))
  if (learner$asks == "table") {
    rows$codes <- lapply(columns, places)
    return(rows)
  }
  numbers <- function(name) numbers_of(data[[name]], name, config)
  rows$values <- vapply(columns, numbers, numeric(nrow(data)))
  if (learner$asks == "auc") rows$case <- places(learner$outcome)
  rows
}

# A column of numbers. In a table, whose missing values were seen to before, each must be finite.
numbers_of <- function(cells, name, config) {
  if (!is.numeric(cells) && !is.logical(cells)) {
    haina_stop(sprintf("column %s holds something else than numbers", name), "numbers")
  }
  if (!is.null(config$columns$columns)) all_usable(is.finite(cells), "finite numbers")
  as.double(cells)
}
