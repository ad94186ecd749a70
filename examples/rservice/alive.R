# Says whether the service computes, while the service itself can answer nobody: Rscript alive.R 8001
#
# GET /health: {"state": "idle" | "computing", "seconds": since when}, or HTTP 503 where the service is gone.

library(plumber)

arguments <- commandArgs(trailingOnly = TRUE)
port <- if (length(arguments)) as.integer(arguments[[1]]) else 8001L
status <- if (length(arguments) > 1) arguments[[2]] else "service-status.json"

health <- function(res) {
  said <- if (file.exists(status)) jsonlite::read_json(status)
  if (is.null(said) || !tools::pskill(said$pid, 0L)) {
    res$status <- 503L
    return(list(state = "not running"))
  }
  list(state = said$state, seconds = round(as.numeric(Sys.time()) - said$since, 1))
}

pr() |>
  pr_get("/health", health, serializer = serializer_unboxed_json()) |>
  pr_run(host = "127.0.0.1", port = port, docs = FALSE, quiet = TRUE)
