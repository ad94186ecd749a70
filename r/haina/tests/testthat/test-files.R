test_that("a file is there whole, and its owner's alone", {
  path <- file.path(withr_file(), "deep", "secret")
  write_whole(path, "first")
  write_whole(path, "second")
  expect_identical(rawToChar(read_secret(path)), "second")
  expect_identical(as.integer(file.mode(path)), strtoi("600", 8L))
  expect_identical(list.files(dirname(path), all.files = TRUE, no.. = TRUE), "secret")
  Sys.chmod(path, "644")
  expect_error(read_secret(path), "everyone on this machine", class = "haina_trust_error")
})

test_that("one process has a folder", {
  folder <- withr_file()
  let_go <- alone(folder)
  expect_identical(readLines(file.path(folder, "process.lock")), as.character(Sys.getpid()))
  let_go()
  # A process that is gone, or whose number is another programme's by now, holds nothing.
  writeLines("1", file.path(folder, "process.lock"))
  expect_silent(alone(folder))
})

test_that("a parcel is made whole, found again, and forgotten", {
  outbox <- withr_file()
  parcel <- outbox_put(outbox, list(round = 12, sha256 = "00", bytes = 3), as.raw(1:3))
  expect_identical(basename(parcel$folder), "000000000012")
  outbox_put(outbox, list(round = 3, sha256 = "00", bytes = 1), as.raw(9))
  dir.create(file.path(outbox, ".000000000013.new"))
  outbox_put(outbox, list(round = 5, sha256 = "00", bytes = 7), as.raw(9))
  expect_identical(vapply(outbox_waiting(outbox), function(one) one$manifest$round, 0L), c(3L, 12L))
  outbox_forget(parcel)
  expect_identical(list.files(outbox, all.files = TRUE, no.. = TRUE), "000000000003")
})

test_that("a model is fetched once, resumed, and verified", {
  folder <- withr_file()
  whole <- as.raw(1:100)
  calls <- list()
  fetch <- function(file, offset) {
    calls[[length(calls) + 1]] <<- offset
    target <- file(file, if (offset) "ab" else "wb")
    on.exit(close(target))
    # The first call is cut.
    writeBin(if (length(calls) == 1) whole[1:40] else whole[-seq_len(offset)], target)
  }
  expect_error(cached(folder, sha256_hex(whole), 100, fetch), "in part", class = "haina_unreachable")
  expect_identical(cached(folder, sha256_hex(whole), 100, fetch), whole)
  expect_identical(cached(folder, sha256_hex(whole), 100, fetch), whole)
  expect_identical(calls, list(0, 40))
  wrong <- function(file, offset) writeBin(as.raw(rep(7, 100)), file)
  expect_error(cached(folder, strrep("0", 64), 100, wrong), "damaged", class = "haina_unreachable")
  expect_identical(list.files(folder), sha256_hex(whole))
})

test_that("a hash that is a path reads, writes and removes nothing", {
  folder <- withr_file()
  dir.create(folder)
  victim <- file.path(folder, "promised.json")
  writeLines("kept", victim)
  called <- FALSE
  fetch <- function(file, offset) called <<- TRUE
  for (name in c("../promised.json", "*", "", strrep("a", 63), strrep("A", 64))) {
    expect_error(cached(file.path(folder, "models"), name, 100, fetch), "no SHA-256", class = "haina_trust_error")
    expect_error(check_task(list(model = name, bytes = 1, round = 1, version = 0)), class = "haina_trust_error")
  }
  expect_error(check_task(list(model = strrep("a", 64), bytes = 1.5, round = 1, version = 0)), class = "haina_trust_error")
  expect_silent(check_task(list(model = strrep("a", 64), bytes = 1, round = 1, version = 0)))
  expect_false(called)
  expect_identical(readLines(victim), "kept")
})
