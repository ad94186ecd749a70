# An R service for `learner = "rservice"`. Start it beside the node: Rscript service.R 8000
#
# It computes one task at a time, and answers nothing else meanwhile; alive.R, a second process, says if it
# still does.

library(plumber)

arguments <- commandArgs(trailingOnly = TRUE)
port <- if (length(arguments)) as.integer(arguments[[1]]) else 8000L
status <- if (length(arguments) > 1) arguments[[2]] else "service-status.json"

# --- what this site computes: change this ------------------------------------------------------------------

#' One client's training.
#'
#' @param params coefficients as received, named as in the federation file.
#' @param data list(x = matrix with column names, y = numbers).
#' @param config the round in words: round, learning_rate, epochs, seed, settings, ...
#' @return list(params =, n =, metrics =); an error becomes HTTP 500, and the client sits the round out.
run_logistic_regression <- function(params, data, config) {
  fit <- glm.fit(cbind(1, data$x), data$y, family = binomial())
  list(params = unname(fit$coefficients), n = nrow(data$x), metrics = list(deviance = fit$deviance))
}

# --- the messages: leave this ------------------------------------------------------------------------------

# int32 bytes of header, int32 count of float64, the header as JSON, then params, x column by column, y.
read_task <- function(body) {
  lengths <- readBin(body, "integer", 2L, 4L, endian = "little")
  words <- body[8L + seq_len(lengths[[1]])]
  header <- jsonlite::parse_json(rawToChar(words), simplifyVector = TRUE)
  numbers <- readBin(body[-seq_len(8L + lengths[[1]])], "double", lengths[[2]], 8L, endian = "little")
  cells <- header$rows * header$columns
  x <- matrix(numbers[header$params + seq_len(cells)], header$rows, header$columns)
  if (length(header$features)) colnames(x) <- header$features
  params <- numbers[seq_len(header$params)]
  if (length(header$names)) names(params) <- header$names
  y <- numbers[header$params + cells + seq_len(header$rows)]
  list(params = params, data = list(x = x, y = y), config = header$config)
}

# Back: params, n and metrics as float64, with the metrics' names in the header.
write_answer <- function(result) {
  numbers <- c(as.double(result$params), as.double(result$n), vapply(result$metrics, as.double, 0))
  words <- charToRaw(as.character(jsonlite::toJSON(list(metrics = I(as.character(names(result$metrics)))))))
  c(writeBin(c(length(words), length(numbers)), raw(), 4L, endian = "little"), words,
    writeBin(numbers, raw(), 8L, endian = "little"))
}

# Written beside and renamed, so that alive.R never reads half of it.
tell <- function(state) {
  said <- list(state = state, since = as.numeric(Sys.time()), pid = Sys.getpid())
  jsonlite::write_json(said, paste0(status, ".new"), auto_unbox = TRUE, digits = NA)
  file.rename(paste0(status, ".new"), status)
}

computed <- function(task) {
  tell("computing")
  on.exit(tell("idle"))
  if (!is.null(task$config$seed)) set.seed(task$config$seed)
  run_logistic_regression(task$params, task$data, task$config)
}

in_binary <- function(req) write_answer(computed(read_task(req$bodyRaw)))

# For `format = "json"`: rows as tables. Slower, and 15 digits of each number.
in_json <- function(req) {
  task <- jsonlite::parse_json(rawToChar(req$bodyRaw), simplifyVector = TRUE)
  rows <- as.data.frame(task$data)
  x <- as.matrix(rows[setdiff(names(rows), "y")])
  result <- computed(list(params = task$params, data = list(x = x, y = rows$y), config = task$config))
  list(coef = result$params, n = result$n, metrics = result$metrics)
}

digits <- serializer_json(digits = I(17), auto_unbox = TRUE)

tell("idle")
pr() |>
  pr_post("/run_logistic_regression", in_binary, serializer = serializer_octet()) |>
  pr_post("/json/run_logistic_regression", in_json, serializer = digits) |>
  pr_run(host = "127.0.0.1", port = port, docs = FALSE, quiet = TRUE)
