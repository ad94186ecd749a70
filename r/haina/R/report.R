#' Pictures of a federation in ggplot2
#'
#' Draws how accuracy went, as the mean of the last evaluations (a blue line) against a threshold (a red dashed line); and, where the records tell it,
#' loss, who counted how much in each round, and how trust went.
#'
#' The figures come from one of three places:
#' * a coordinator: `source` is a folder of credentials of a viewer or an operator (made by `haina join`), or the coordinator's own state folder;
#' * a run on this machine: `source` is its folder (`runs/NAME`);
#' * Prometheus: `prometheus` is the address of a server (`http://127.0.0.1:9090`), whose history is asked for; or the address, a file or the text of
#'   one exposition (`/metrics`), which tells of one moment, or of each round where it has a label `round`.
#'
#' @param source a folder; `NULL` where `prometheus` is given.
#' @param out where to write: a file that ends in .png, .svg or .pdf gets the picture of accuracy (of loss where there is no accuracy); any other name is
#'   a folder that gets one PNG for each picture. `NULL` writes nothing.
#' @param threshold where the red dashed line lies, between 0 and 1.
#' @param window evaluations in the rolling mean, 1 or more.
#' @param prometheus see above.
#' @param federation which federation of a coordinator or of Prometheus; may be left out where there is one only.
#' @param last so many of the newest rounds are looked at, 1 to 1000.
#' @param metric name of the accuracy in Prometheus.
#' @param hours how far back Prometheus is asked.
#' @return a list of ggplots of class `haina_report`, of `accuracy`, `loss`, `shares` and `trust` those that the source can tell of. Printing it draws
#'   them.
#' @examples
#' \dontrun{
#' haina_report("runs/demo", out = "accuracy.png")
#' haina_report("haina-node-me", federation = "readmission", window = 10)$accuracy
#' haina_report(prometheus = "http://127.0.0.1:9090", out = "trend.svg")
#' }
#' @export
haina_report <- function(source = NULL, out = NULL, threshold = 0.9, window = 5, prometheus = NULL,
                         federation = NULL, last = 200, metric = "haina_accuracy", hours = 24) {
  needs("ggplot2", "pictures")
  check_number(threshold, "threshold", 0, 1)
  check_number(window, "window", 1, 1000)
  check_number(last, "last", 1, 1000)
  if (is.null(source) == is.null(prometheus)) {
    haina_stop(if (is.null(source)) "no source is named" else "two sources are named",
      allowed = "a folder, or prometheus = an address", remedy = NEEDED
    )
  }
  pictures <- if (is.null(prometheus)) {
    pictures_of(source_of(source, federation), threshold, window, last)
  } else {
    points <- prometheus_points(prometheus, metric, federation, hours)
    list(accuracy = draw_accuracy(points, threshold, window, x = attr(points, "axis")))
  }
  pictures <- structure(Filter(Negate(is.null), pictures), class = "haina_report")
  if (!length(pictures)) {
    haina_stop("there is nothing to draw: no round was evaluated, and no client has a share",
      remedy = "Let a round close; accuracy needs test rows (test under [data] in the federation file)"
    )
  }
  if (!is.null(out)) write_pictures(pictures, out)
  pictures
}

pictures_of <- function(source, threshold, window, last) {
  rounds <- source$rounds(last)
  # A list of a coordinator is without clients; a round alone is told whole.
  whole <- lapply(rounds, function(info) {
    if (is.null(info$record) || length(info$record$clients)) info else source$round(info$number)
  })
  course <- course_of_clients(whole)
  list(
    accuracy = draw_accuracy(measured(rounds, "accuracy"), threshold, window),
    loss = draw_loss(measured(rounds, "loss"), window),
    shares = draw_shares(course), trust = draw_trust(course)
  )
}

write_pictures <- function(pictures, out) {
  suffix <- tolower(sub("^.*\\.", ".", basename(out)))
  if (suffix %in% names(DEVICES)) {
    if (!dir.exists(dirname(out))) haina_stop(
      paste("there is no folder", dirname(out)), remedy = "Make it first"
    )
    return(draw_file(pictures[[1]], out, suffix))
  }
  if (grepl("^\\.[a-z]{2,4}$", suffix) && !dir.exists(out)) {
    haina_stop(
      paste("pictures cannot be written as", suffix), allowed = paste(names(DEVICES), collapse = ", ")
    )
  }
  dir.create(out, showWarnings = FALSE, recursive = TRUE)
  for (name in names(pictures)) draw_file(pictures[[name]], file.path(out, paste0(name, ".png")), ".png")
}

# 10 by 5.625 inches; a PNG has 1600 x 900 pixels.
DEVICES <- list(
  .png = function(file) grDevices::png(file, width = 1600, height = 900, res = 160, type = "cairo"),
  .svg = function(file) grDevices::svg(file, width = 10, height = 5.625),
  .pdf = function(file) grDevices::cairo_pdf(file, width = 10, height = 5.625)
)

draw_file <- function(picture, file, suffix) {
  DEVICES[[suffix]](file)
  on.exit(grDevices::dev.off())
  print(picture)
  invisible(file)
}

#' @export
print.haina_report <- function(x, ...) {
  for (picture in x) print(picture)
  invisible(x)
}

# Stop, in words, where a suggested package is missing.
needs <- function(package, what) {
  if (requireNamespace(package, quietly = TRUE)) return(invisible())
  haina_stop(paste(what, "need the package", package), remedy = sprintf("install.packages(\"%s\")", package))
}

check_number <- function(value, name, least, most) {
  good <- is.numeric(value) && length(value) == 1L && is.finite(value) && value >= least && value <= most
  if (good) return(invisible())
  said <- paste(format(value), collapse = ", ")
  haina_stop(sprintf("%s is %s", name, said), allowed = sprintf("%g to %g", least, most))
}
