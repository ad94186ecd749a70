welcome <- function(clip = 1, privacy = TRUE, epochs = 1) {
  file <- list(seed = 1L, model = list(learner = "jax"), train = list(epochs = epochs), strategy = list(), serve = list(nodes = 3L, away = 5L))
  if (privacy) file$privacy <- list(noise = "central", clip = clip)
  text <- to_json(list(file = file, task = list(epochs = epochs)))
  list(federation = "trial", text = "name = \"trial\"", brief_text = text, brief = from_json(text, "it"))
}

test_that("the first promise is kept, and another is refused until a person deletes it", {
  folder <- withr_file()
  hold_promise(folder, welcome())
  expect_silent(hold_promise(folder, welcome()))
  expect_error(hold_promise(folder, welcome(clip = 2)), "[privacy] clip was 1, and is 2", fixed = TRUE, class = "haina_trust_error")
  expect_error(hold_promise(folder, welcome(privacy = FALSE)), "[privacy] is gone", fixed = TRUE)
  expect_error(hold_promise(folder, welcome(epochs = 5)), "[train] epochs was 1, and is 5", fixed = TRUE)
  unlink(file.path(folder, "promised.json"))
  expect_silent(hold_promise(folder, welcome(clip = 2)))
})

test_that("without a promise the file may change", {
  folder <- withr_file()
  hold_promise(folder, welcome(privacy = FALSE))
  expect_silent(hold_promise(folder, welcome(privacy = FALSE, epochs = 9)))
  expect_silent(hold_promise(folder, welcome(epochs = 9)))
  expect_error(hold_promise(folder, welcome(epochs = 1)))
})

test_that("a promise that was damaged is none", {
  folder <- withr_file()
  hold_promise(folder, welcome())
  writeLines("{", file.path(folder, "promised.json"))
  expect_error(hold_promise(folder, welcome()), "does not hold what this site takes part under")
})
