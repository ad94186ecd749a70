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

test_that("what a site does is held as well as the file that it follows from", {
  folder <- withr_file()
  told <- welcome()
  told$brief$payload <- "average"
  told$brief_text <- to_json(told$brief)
  hold_promise(folder, told)
  told$brief$payload <- "sum"
  expect_error(hold_promise(folder, told), "payload was \"average\", and is \"sum\"", fixed = TRUE, class = "haina_trust_error")
})

test_that("a brief that the file does not bear out is refused, and small cells are guarded by the file", {
  brief <- function(payload, kind = "glm", ..., privacy = NULL, learner = list()) {
    file <- list(model = list(learner = kind, ...), privacy = privacy)
    list(payload = payload, file = file, learner = c(list(kind = kind), learner))
  }
  expect_error(borne_out(brief("sum", "jax")), "vectors are for \"sum\"", class = "haina_trust_error")
  expect_error(borne_out(brief("average")), "\"sum\", as of the file's learner", class = "haina_trust_error")
  expect_identical(borne_out(brief("sum", learner = list(min_cell = 1)))$learner$min_cell, 5)
  expect_identical(borne_out(brief("sum", min_cell = 8))$learner$min_cell, 8)
  expect_error(borne_out(brief("sum", check = "sum")), "would see the small cells", class = "haina_privacy_error")
  wrong <- brief("sum")
  wrong$learner$kind <- "summary"
  expect_error(borne_out(wrong), "another learner", class = "haina_trust_error")
  expect_error(refuse_rare(cbind(c(1, rep(0, 20))), list()), "fewer than 5 rows")
})
