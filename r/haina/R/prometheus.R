# Figures from Prometheus: the text that an endpoint exposes (format 0.0.4), or the history that a server keeps (`/api/v1/query_range`).
#
# Names and values come from outside: they are parsed by the format's own grammar, bounded, and never evaluated.

#' Read a Prometheus exposition
#'
#' @param text the exposition: one string or lines (text format 0.0.4, or OpenMetrics, of which exemplars are passed over).
#' @return a data frame with a row a sample: `name`, `labels` (a list of named character vectors) and `value`. Samples that are no numbers of the
#'   format are refused.
#' @examples
#' haina_exposition("haina_accuracy{federation=\"a\"} 0.93")
#' @export
haina_exposition <- function(text) {
  lines <- unlist(strsplit(enc2utf8(text), "\r?\n", perl = TRUE))
  lines <- lines[nzchar(trimws(lines)) & !grepl("^\\s*#", lines)]
  # name {labels} value [timestamp] [# exemplar]
  pattern <- paste0(
    "^\\s*([a-zA-Z_:][a-zA-Z0-9_:]*)\\s*(\\{((?:[^\"}]|\"(?:[^\"\\\\]|\\\\.)*\")*)\\})?",
    "\\s+(\\S+)(\\s+-?[0-9.]+)?\\s*(#.*)?$"
  )
  parts <- regmatches(lines, regexec(pattern, lines, perl = TRUE))
  bad <- which(lengths(parts) == 0L)
  if (length(bad)) {
    haina_stop(
      sprintf("this is no sample of Prometheus: %s", plain(lines[bad[1]])),
      allowed = "name{label=\"value\"} number"
    )
  }
  column <- function(i) vapply(parts, `[`, "", i)
  samples <- data.frame(name = column(2L), value = vapply(column(5L), exposed_number, 0, USE.NAMES = FALSE))
  samples$labels <- lapply(column(4L), exposed_labels)
  samples[c("name", "labels", "value")]
}

exposed_number <- function(text) {
  special <- c("+Inf" = Inf, "Inf" = Inf, "-Inf" = -Inf, "NaN" = NaN)
  if (text %in% names(special)) return(special[[text]])
  if (grepl("^[+-]?([0-9]+\\.?[0-9]*|\\.[0-9]+)([eE][+-]?[0-9]+)?$", text)) return(as.numeric(text))
  haina_stop(sprintf("%s is no number of Prometheus", plain(text)))
}

exposed_labels <- function(text) {
  pattern <- "([a-zA-Z_][a-zA-Z0-9_]*)\\s*=\\s*\"((?:[^\"\\\\]|\\\\.)*)\""
  found <- regmatches(text, gregexpr(pattern, text, perl = TRUE))[[1]]
  pairs <- regmatches(found, regexec(pattern, found, perl = TRUE))
  values <- vapply(pairs, function(pair) unescaped(pair[3]), "")
  stats::setNames(values, vapply(pairs, `[`, "", 2L))
}

# \\, \" and \n, each once and from left to right.
unescaped <- function(text) {
  pieces <- strsplit(text, "", fixed = TRUE)[[1]]
  out <- character()
  i <- 1L
  while (i <= length(pieces)) {
    escape <- pieces[i] == "\\" && i < length(pieces)
    out <- c(out, if (!escape) pieces[i] else if (pieces[i + 1L] == "n") "\n" else pieces[i + 1L])
    i <- i + 1L + escape
  }
  paste(out, collapse = "")
}

# (round, value) of an accuracy, with the attribute `axis` that says what counts as a round.
prometheus_points <- function(prometheus, metric, federation = NULL, hours = 24) {
  if (!grepl("^[a-zA-Z_:][a-zA-Z0-9_:]*$", metric)) {
    haina_stop(
      sprintf("%s is no name of a metric", plain(metric)),
      allowed = "letters, digits, _ and :, as in haina_accuracy"
    )
  }
  check_number(hours, "hours", 1 / 60, 24 * 366)
  address <- length(prometheus) == 1L && grepl("^https?://", prometheus)
  history <- address && !grepl("/metrics/?$", prometheus)
  if (history) return(history_points(prometheus, metric, federation, hours))
  text <- if (address) {
    fetched(prometheus, "the endpoint")
  } else if (length(prometheus) == 1L && !grepl("\n", prometheus) && file.exists(prometheus)) {
    readLines(prometheus, warn = FALSE, encoding = "UTF-8")
  } else {
    prometheus
  }
  exposed_points(haina_exposition(text), metric, federation)
}

# One moment: with a label `round` a point a round; without, one point, at the federation's round where `haina_round` tells it.
exposed_points <- function(samples, metric, federation) {
  mine <- of_one(samples, metric, federation)
  rounds <- suppressWarnings(as.numeric(vapply(mine$labels, label_of, "", "round")))
  if (anyNA(rounds)) {
    counted <- samples[samples$name %in% c("haina_round", "haina_rounds_closed"), , drop = FALSE]
    federations <- function(samples) vapply(samples$labels, label_of, "", "federation")
    same <- federations(counted) %in% federations(mine)
    now <- if (any(same, na.rm = TRUE)) max(counted$value[which(same)]) else 1
    rounds <- rep(now, nrow(mine))
  }
  points <- data.frame(round = rounds, value = mine$value)
  points <- points[is.finite(points$value), , drop = FALSE]
  structure(points[order(points$round), , drop = FALSE], axis = "round")
}

# What a server has kept: where its samples carry the round beside them, (round, value); else the evaluations in their order.
history_points <- function(server, metric, federation, hours) {
  end <- floor(as.numeric(Sys.time()))
  # A server gives at most 11,000 points a series.
  step <- max(1, ceiling(hours * 3600 / 10000))
  query <- metric
  if (!is.null(federation)) query <- sprintf(
    "%s{federation=%s}", metric, encodeString(federation, quote = "\"")
  )
  url <- sprintf(
    "%s/api/v1/query_range?query=%s&start=%d&end=%d&step=%d", sub("/$", "", server), curl::curl_escape(query),
    as.integer(end - hours * 3600), as.integer(end), as.integer(step)
  )
  range_points(fetched(url, "Prometheus"), metric, federation)
}

# (round, value) from the answer of `/api/v1/query_range`. A gauge repeats its value until it changes: each change is an evaluation.
range_points <- function(text, metric, federation = NULL) {
  said <- tryCatch(jsonlite::fromJSON(text, simplifyVector = FALSE), error = function(e) NULL)
  if (!identical(said$status, "success")) {
    why <- if (is.null(said$error)) "what came is no answer to a query" else said$error
    haina_stop(paste("Prometheus does not answer:", plain(why)))
  }
  series <- said$data$result
  samples <- data.frame(name = rep(metric, length(series)), value = rep(NA_real_, length(series)))
  each <- function(one, of_pair) vapply(one$values, of_pair, 0)
  samples$labels <- lapply(series, function(one) unlist(one$metric))
  samples$values <- lapply(series, each, function(pair) exposed_number(pair[[2]]))
  samples$times <- lapply(series, each, function(pair) as.numeric(pair[[1]]))
  mine <- of_one(samples, metric, federation)
  rounds <- suppressWarnings(as.numeric(vapply(mine$labels, label_of, "", "round")))
  if (!anyNA(rounds)) {
    points <- data.frame(
      round = rounds, value = vapply(mine$values, function(values) values[length(values)], 0)
    )
    return(structure(points[order(points$round), , drop = FALSE], axis = "round"))
  }
  values <- unlist(mine$values)[order(unlist(mine$times))]
  values <- values[is.finite(values)]
  changed <- c(TRUE, values[-1L] != values[-length(values)])[seq_along(values)]
  structure(data.frame(round = seq_len(sum(changed)), value = values[changed]), axis = "evaluation")
}

# The samples of one metric and one federation.
of_one <- function(samples, metric, federation) {
  mine <- samples[samples$name == metric, , drop = FALSE]
  names <- vapply(mine$labels, label_of, "", "federation")
  if (!is.null(federation)) {
    mine <- mine[names %in% federation, , drop = FALSE]
  } else if (length(unique(names)) > 1L) {
    haina_stop(sprintf("%s is there for %d federations, and none is named", metric, length(unique(names))),
      allowed = paste(unique(names), collapse = ", "), remedy = "Name one: federation = \"NAME\""
    )
  }
  if (nrow(mine)) return(mine)
  there <- utils::head(grep("^haina_", unique(samples$name), value = TRUE), 10L)
  for_whom <- if (is.null(federation)) "" else paste(" of", plain(federation))
  haina_stop(sprintf("there is no %s%s", metric, for_whom),
    allowed = paste(there, collapse = ", "),
    remedy = "Name another (metric = \"...\"), or let a round be evaluated"
  )
}

label_of <- function(labels, name) if (name %in% names(labels)) labels[[name]] else NA_character_
