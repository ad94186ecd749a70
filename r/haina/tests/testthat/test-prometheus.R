# The example of the format's own description (text format 0.0.4), with a federation's gauges behind it.
EXPOSITION <- "# HELP http_requests_total The total number of HTTP requests.
# TYPE http_requests_total counter
http_requests_total{method=\"post\",code=\"200\"} 1027 1395066363000
http_requests_total{method=\"post\",code=\"400\"}    3 1395066363000

# Escaping in label values:
msdos_file_access_time_seconds{path=\"C:\\\\DIR\\\\FILE.TXT\",error=\"Cannot find file:\\n\\\"FILE.TXT\\\"\"} 1.458255915e9

# Minimalistic line:
metric_without_timestamp_and_labels 12.47

# A weird metric from before the epoch:
something_weird{problem=\"division by zero\"} +Inf -3982045

# A histogram, which has a pretty complex representation in the text format:
# HELP http_request_duration_seconds A histogram of the request duration.
# TYPE http_request_duration_seconds histogram
http_request_duration_seconds_bucket{le=\"0.05\"} 24054
http_request_duration_seconds_bucket{le=\"+Inf\"} 144320
http_request_duration_seconds_sum 53423
http_request_duration_seconds_count 144320
haina_accuracy{federation=\"a}b\",} NaN
haina_accuracy{federation=\"readmission\"} 0.9375
haina_round{federation=\"readmission\"} 17
"

test_that("the format's own example is read", {
  samples <- haina_exposition(EXPOSITION)
  expect_equal(nrow(samples), 12L)
  value <- function(name, i = 1L) samples$value[samples$name == name][i]
  expect_equal(value("http_requests_total", 1:2), c(1027, 3))
  expect_equal(value("metric_without_timestamp_and_labels"), 12.47)
  expect_equal(value("something_weird"), Inf)
  expect_equal(value("http_request_duration_seconds_bucket", 2L), 144320)
  expect_true(is.nan(value("haina_accuracy")))
  labels <- samples$labels[[which(samples$name == "msdos_file_access_time_seconds")]]
  expect_equal(labels, c(path = "C:\\DIR\\FILE.TXT", error = "Cannot find file:\n\"FILE.TXT\""))
  expect_equal(samples$labels[samples$name == "haina_accuracy"][[1]], c(federation = "a}b"))
  expect_equal(
    samples$labels[samples$name == "metric_without_timestamp_and_labels"][[1]],
    stats::setNames(character(), character())
  )
})

test_that("OpenMetrics is read too, without its exemplars", {
  samples <- haina_exposition(
    "foo_total{a=\"b\"} 17.0 # {trace_id=\"oHg5SJYRHA0\"} 9.8 1520879607.789\n# EOF\n"
  )
  expect_equal(samples$value, 17)
})

test_that("what is no exposition is refused", {
  expect_error(haina_exposition("<html>"), "no sample of Prometheus: <html>")
  expect_error(haina_exposition("a{b=\"c} 1"), "no sample")
  expect_error(haina_exposition("a system('true')"), "no sample|no number")
  expect_error(haina_exposition("a 0x10"), "no number of Prometheus")
})

test_that("one moment is one point, at the federation's round", {
  skip_if_not_installed("ggplot2")
  picture <- haina_report(prometheus = EXPOSITION, federation = "readmission")$accuracy
  expect_equal(picture$data[c("round", "value")], data.frame(round = 17, value = 0.9375), ignore_attr = TRUE)
  expect_error(
    haina_report(prometheus = EXPOSITION), "2 federations, and none is named. Allowed: a}b, readmission",
    fixed = TRUE
  )
  expect_error(haina_report(prometheus = EXPOSITION, federation = "other"), "no haina_accuracy of other")
  expect_error(haina_report(prometheus = EXPOSITION, metric = "up{}"), "no name of a metric")
})

test_that("a label `round` gives a point a round", {
  lines <- sprintf("haina_accuracy{federation=\"f\",round=\"%d\"} %.2f", c(10, 9, 2), c(0.95, 0.9, 0.4))
  points <- prometheus_points(paste0(paste(lines, collapse = "\n"), "\n"), "haina_accuracy")
  expect_equal(points$round, c(2, 9, 10))
  expect_equal(points$value, c(0.4, 0.9, 0.95))
})

test_that("the answer of query_range becomes one point for each change", {
  answer <- paste0(
    "{\"status\":\"success\",\"data\":{\"resultType\":\"matrix\",\"result\":[{\"metric\":{\"__name__\":\"haina_accuracy\",\"federation\":\"f\"},",
    "\"values\":[[1435781430.781,\"0.5\"],[1435781445.781,\"0.5\"],[1435781460.781,\"0.91\"],[1435781475.781,\"NaN\"],[1435781490.781,\"0.95\"]]}]}}"
  )
  points <- range_points(answer, "haina_accuracy", "f")
  expect_equal(points$value, c(0.5, 0.91, 0.95))
  expect_equal(points$round, 1:3)
  expect_equal(attr(points, "axis"), "evaluation")
  expect_error(
    range_points("{\"status\":\"error\",\"errorType\":\"bad_data\",\"error\":\"parse error\"}", "m"),
    "parse error"
  )
  expect_error(range_points("nonsense", "m"), "does not answer")
  empty <- "{\"status\":\"success\",\"data\":{\"resultType\":\"matrix\",\"result\":[]}}"
  expect_error(range_points(empty, "haina_accuracy"), "there is no haina_accuracy")
})
