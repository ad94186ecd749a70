# The R end of haina.learners.r.process: reads frames from descriptor 3 and answers on 4, until 3 is closed.
# Standard output is a log, so print() in a script is harmless. Rows come once and are kept by their hash.

local({
  options(warn = 1)
  if (!requireNamespace("jsonlite", quietly = TRUE)) {
    message("haina needs the R package jsonlite: install.packages(\"jsonlite\")")
    quit("no", 69L)
  }
  input <- file("/dev/fd/3", "rb", raw = TRUE)
  output <- file("/dev/fd/4", "wb", raw = TRUE)

  read_frame <- function() {
    lengths <- readBin(input, "integer", 2L, 4L, endian = "little")
    if (length(lengths) < 2L) return(NULL)
    header <- rawToChar(readBin(input, "raw", lengths[[1L]]))
    Encoding(header) <- "UTF-8"
    list(
      header = jsonlite::parse_json(header, simplifyVector = TRUE),
      numbers = readBin(input, "double", lengths[[2L]], 8L, endian = "little")
    )
  }

  # One write a frame. Numbers go behind the header, for JSON would cut their digits.
  write_frame <- function(header, numbers = numeric()) {
    words <- charToRaw(enc2utf8(as.character(jsonlite::toJSON(header, auto_unbox = TRUE))))
    lengths <- writeBin(c(length(words), length(numbers)), raw(), 4L, endian = "little")
    writeBin(c(lengths, words, writeBin(as.double(numbers), raw(), 8L, endian = "little")), output)
    flush(output)
  }

  # What is said here names coefficients and never values, so it may travel.
  refuse <- function(...) {
    kinds <- c("haina_refusal", "error", "condition")
    stop(structure(list(message = paste0(...), call = NULL), class = kinds))
  }

  script <- NULL
  names_of_params <- NULL
  columns <- NULL
  kept <- new.env(parent = emptyenv())

  begin <- function(header) {
    script <<- new.env(parent = globalenv())
    if (length(header$names)) names_of_params <<- as.character(header$names)
    columns <<- header
    sys.source(header$script, envir = script)
    if (!is.function(script$train)) {
      refuse(basename(header$script), " defines no function train(params, data, config)")
    }
    offered <- c("predict", "evaluate")
    list(header = list(offers = I(offered[vapply(offered, function(name) is.function(script[[name]]), NA)])))
  }

  hold <- function(header, numbers) {
    rm(list = as.character(header$drop), envir = kept)
    cells <- header$rows * header$columns
    x <- matrix(numbers[seq_len(cells)], header$rows, header$columns)
    if (length(columns$features) == ncol(x)) colnames(x) <- as.character(columns$features)
    classes <- if (length(columns$classes)) as.character(columns$classes)
    y <- numbers[cells + seq_len(header$rows)]
    assign(header$key, list(x = x, y = y, classes = classes), envir = kept)
    list(header = list(ok = TRUE))
  }

  named <- function(params) {
    names(params) <- names_of_params
    params
  }

  checked_params <- function(params, received) {
    if (!is.numeric(params)) refuse("params is of type ", typeof(params), ", and must be numeric")
    if (length(params) != length(received)) {
      refuse("params has ", length(params), " numbers, and the model has ", length(received))
    }
    own <- names(params)
    if (length(own) && !identical(own, names(received)) && setequal(own, names(received))) {
      shown <- paste(utils::head(own, 20L), collapse = ", ")
      refuse("params has the names of the model in another order: ", shown)
    }
    bad <- which(!is.finite(params))
    if (length(bad)) {
      place <- bad[[1L]]
      what <- if (is.nan(params[[place]])) "NaN" else if (is.na(params[[place]])) "NA" else "infinite"
      name <- if (is.null(names(received))) "" else paste0(" (", names(received)[[place]], ")")
      refuse("params[", place, "]", name, " is ", what, ", and every number must be finite")
    }
    as.double(params)
  }

  numbers_by_name <- function(values, what) {
    values <- as.list(values)
    is_number <- function(value) length(value) == 1L && (is.numeric(value) || is.logical(value))
    if (!all(vapply(values, is_number, NA)) || sum(nzchar(names(values))) < length(values)) {
      refuse(what, " must be named single numbers, such as list(loss = 0.3)")
    }
    vapply(values, as.double, 0)
  }

  train <- function(header, numbers) {
    config <- header$config
    config$names <- names_of_params
    received <- named(numbers)
    set.seed(config$seed, "Mersenne-Twister", "Inversion", "Rejection")
    result <- script$train(received, kept[[header$key]], config)
    if (!is.list(result) || is.null(result[["params"]])) {
      kind <- class(result)[[1L]]
      refuse("train() returned ", kind, " without params; allowed: list(params = , n = , metrics = )")
    }
    params <- checked_params(result[["params"]], received)
    n <- if (is.null(result[["n"]])) nrow(kept[[header$key]]$x) else result[["n"]]
    if (!is.numeric(n) || length(n) != 1L || !is.finite(n) || n <= 0) {
      refuse("n must be one number > 0: how many examples were used")
    }
    metrics <- numbers_by_name(result[["metrics"]], "metrics")
    list(header = list(metrics = I(as.character(names(metrics)))), numbers = c(params, as.double(n), metrics))
  }

  predict <- function(header, numbers) {
    predicted <- script$predict(named(numbers), kept[[header$key]]$x, header$config)
    rows <- nrow(kept[[header$key]]$x)
    shape <- dim(predicted)
    if (is.null(shape) || identical(shape[-1L], 1L)) shape <- length(predicted)
    if (!is.numeric(predicted) || shape[[1L]] != rows || length(shape) > 2L) {
      refuse("predict() must return a number for each row, or a matrix with a column for each class")
    }
    list(header = list(shape = I(shape)), numbers = predicted)
  }

  evaluate <- function(header, numbers) {
    said <- script$evaluate(named(numbers), kept[[header$key]], header$config)
    said <- numbers_by_name(said, "what evaluate() returns")
    if (!"loss" %in% names(said)) refuse("evaluate() must return list(loss = , ...)")
    list(header = list(metrics = I(names(said))), numbers = said)
  }

  # An error's words travel where the script itself called stop(); what a package or R says may quote a cell
  of_script <- function(fun) {
    if (!is.function(fun) || is.primitive(fun)) return(FALSE)
    place <- environment(fun)
    while (!identical(place, emptyenv())) {
      if (identical(place, script)) return(TRUE)
      place <- parent.env(place)
    }
    FALSE
  }

  said_by_script <- function() {
    functions <- lapply(seq_len(sys.nframe()), sys.function)
    stops <- which(vapply(functions, identical, NA, base::stop))
    if (!length(stops)) return(FALSE)
    caller <- sys.parents()[[max(stops)]]
    caller > 0L && of_script(functions[[caller]])
  }

  answer <- function(request) {
    own <- FALSE
    tryCatch(
      withCallingHandlers(
        switch(request$header$call,
          begin = begin(request$header),
          rows = hold(request$header, request$numbers),
          train = train(request$header, request$numbers),
          predict = predict(request$header, request$numbers),
          evaluate = evaluate(request$header, request$numbers)
        ),
        error = function(e) own <<- inherits(e, "haina_refusal") || said_by_script()
      ),
      error = function(e) {
        place <- if (is.null(conditionCall(e))) "" else deparse(conditionCall(e)[[1L]])[[1L]]
        words <- conditionMessage(e)
        message("R script, ", request$header$call, if (nzchar(place)) paste0(", in ", place), ": ", words)
        list(header = list(error = substr(words, 1L, 1000L), own = own, place = substr(place, 1L, 80L)))
      }
    )
  }

  while (!is.null(request <- read_frame())) {
    said <- answer(request)
    request <- NULL
    write_frame(said$header, if (is.null(said$numbers)) numeric() else said$numbers)
  }
})
