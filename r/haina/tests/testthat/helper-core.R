# A file that goes with the test.
withr_file <- function(env = parent.frame()) {
  path <- tempfile()
  do.call(on.exit, list(bquote(unlink(.(path), recursive = TRUE)), add = TRUE), envir = env)
  path
}

# A site without a coordinator.
toy_site <- function(train, payload = "average", length = 3, policy = NULL) {
  site <- new.env()
  site$train <- train
  site$brief <- list(payload = payload, length = length, learner = list(), file = list(), task = list(epochs = 1))
  site$policy <- policy
  site$own <- list(name = "a")
  site$federation <- "trial"
  site$settings <- list(values = list())
  site
}

toy_task <- function(...) utils::modifyList(list(round = 1, version = 0, learning_rate = 0.1, epochs = 1, codec = "raw", seconds = 60), list(...))
