skip_if_not_installed("ggplot2")

test_that("accuracy is a blue line with a red dashed threshold at 0.9", {
  picture <- haina_report(run_by_hand(), window = 2)$accuracy
  layers <- drawn(picture)
  kinds <- vapply(layers, function(layer) layer$geom, "")
  line <- layers[[which(kinds == "GeomLine")]]
  threshold <- layers[[which(kinds == "GeomHline")]]
  expect_equal(line$colour, "#0072B2")
  # Means of the last two evaluations: 0.5, then (0.5 + 0.92) / 2, (0.92 + 0.85) / 2 and, as round 4 was not evaluated, (0.85 + 0.95) / 2.
  expect_equal(line$y, c(0.5, 0.71, 0.885, 0.9), tolerance = 1e-15)
  expect_equal(threshold$colour, "#D55E00")
  expect_equal(threshold$linetype, "dashed")
  expect_equal(threshold$at, 0.9)
})

test_that("another threshold and no window", {
  layers <- drawn(haina_report(run_by_hand(), threshold = 0.8, window = 1)$accuracy)
  kinds <- vapply(layers, function(layer) layer$geom, "")
  expect_equal(layers[[which(kinds == "GeomHline")]]$at, 0.8)
  expect_equal(layers[[which(kinds == "GeomLine")]]$y, c(0.5, 0.92, 0.85, 0.95))
})

test_that("titles say the finding, in the words of the Python side", {
  pictures <- haina_report(run_by_hand())
  expect_named(pictures, c("accuracy", "loss", "shares", "trust"))
  title <- function(name) gsub("\n", " ", pictures[[name]]$labels$title)
  expect_equal(
    title("accuracy"), "Accuracy reached 90% in round 2, and was below it in 1 later round; it ended at 95.0%"
  )
  expect_equal(title("loss"), "Loss fell from 1 to 0.2")
  expect_equal(title("shares"), "The largest share of a round was 60.0%; 1 client in quarantine got nothing")
  expect_equal(title("trust"), "1 of 3 clients lost trust and came into quarantine")
  expect_match(pictures$trust$labels$subtitle, "\u00d7 quarantine begins, \u25cb it ends", fixed = TRUE)
})

test_that("what was not measured is not drawn", {
  folder <- run_by_hand(4)
  expect_named(haina_report(folder), "trust")
  expect_error(haina_report(run_by_hand(integer())), "nothing to draw")
})

test_that("files are written in the format of their suffix, or one for each picture", {
  folder <- run_by_hand()
  out <- tempfile("out-")
  dir.create(out)
  begins <- function(name, n) readBin(file.path(out, name), "raw", n)
  haina_report(folder, out = file.path(out, "a.png"))
  png <- begins("a.png", 24L)
  expect_equal(png[2:4], charToRaw("PNG"))
  expect_equal(readBin(png[17:24], "integer", 2L, endian = "big"), c(1600L, 900L))
  haina_report(folder, out = file.path(out, "a.svg"))
  expect_match(paste(readLines(file.path(out, "a.svg"), warn = FALSE), collapse = ""), "<svg")
  haina_report(folder, out = file.path(out, "a.pdf"))
  expect_equal(begins("a.pdf", 5L), charToRaw("%PDF-"))
  haina_report(folder, out = file.path(out, "all"))
  expect_setequal(list.files(file.path(out, "all")), paste0(c("accuracy", "loss", "shares", "trust"), ".png"))
  expect_error(haina_report(folder, out = file.path(out, "a.bmp")), "Allowed: .png, .svg, .pdf", fixed = TRUE)
  expect_error(haina_report(folder, out = file.path(out, "nowhere", "a.png")), "no folder")
})

test_that("many clients become few rows, and the worst and the best are among them", {
  rounds <- lapply(1:3, function(number) {
    clients <- lapply(
      1:100,
      function(k) client_line(
        sprintf("c%03d", k), if (k > 90) "quarantined" else "admitted", if (k > 90) 0 else k / 5000
      )
    )
    list(number = number, record = list(round = number, outcome = "stepped", clients = clients))
  })
  picture <- draw_shares(course_of_clients(rounds))
  expect_equal(nlevels(picture$data$row), 20L)
  expect_true(all(c("c090", "c100", "80 others, mean") %in% picture$data$row |
                    c("c090", "c100", "81 others, mean") %in% picture$data$row))
})

test_that("a run is read on from where it was, without the line that is still being written", {
  folder <- run_by_hand(1:2)
  source <- run_source(folder)
  expect_length(source$rounds(100), 2L)
  file <- file(file.path(folder, "rounds.jsonl"), "ab")
  writeBin(charToRaw("{\"round\":3,\"outc"), file)
  close(file)
  expect_length(source$rounds(100), 2L)
  write_rounds(folder, 1:5)
  expect_equal(vapply(source$rounds(2), function(info) info$number, 0L), 4:5)
  expect_equal(source$round(4)$state, "failed")
  expect_error(source$round(9), "no round 9")
  # Started over.
  write_rounds(folder, 1)
  expect_length(source$rounds(100), 1L)
})

test_that("errors name what is wrong and what to do", {
  expect_error(haina_report("nowhere-at-all"), "no folder nowhere-at-all.*haina join")
  expect_error(haina_report(tempdir()), "neither a run nor a viewer")
  expect_error(haina_report(), "no source is named")
  expect_error(haina_report(run_by_hand(), threshold = 2), "threshold is 2. Allowed: 0 to 1", fixed = TRUE)
  folder <- run_by_hand()
  writeLines("{\"no\": \"record\"}", file.path(folder, "rounds.jsonl"))
  expect_error(haina_report(folder), "no record of a round")
})

test_that("numbers are written as on the Python side", {
  # `haina.monitoring.text`.
  expect_equal(vapply(c(NA, 0, 0.0004, 0.031, 1), percent, ""), c("\u2013", "0%", "<0.1%", "3.1%", "100.0%"))
  expect_equal(vapply(c(-0.83, 24.1, 12345, NA), number, ""), c("-0.83", "24.1", "12,345", "\u2013"))
  expect_equal(vapply(c(0.12, 3.4, 200, 7500), duration, ""), c("0.12 s", "3.4 s", "3 min 20 s", "2 h 5 min"))
  expect_equal(plain("a\nb\u202ec\u001b[31m"), "a\ufffdb\ufffdc\ufffd[31m")
  expect_equal(nchar(plain(strrep("x", 500))), 160L)
})
