skip_if_not_installed("shiny")
skip_if_not_installed("ggplot2")

# What an output holds, as text of HTML.
html <- function(output) as.character(output$html)

watching <- function(folder) dashboard_server(function() source_of(folder), every = 1)

test_that("a run is shown: heading, facts, rounds", {
  shiny::testServer(watching(run_by_hand()), {
    expect_match(html(output$heading), "by hand")
    expect_match(html(output$heading), "running")
    expect_match(html(output$facts), "5 of 5")
    expect_match(html(output$facts), "95.0% in round 5")
    expect_match(html(output$facts), "round 5: 1 failed")
    rows <- regmatches(
      html(output$rounds), gregexpr("<tr class=\"opens[^>]*data-round=\"[0-9]+\"", html(output$rounds))
    )[[1]]
    expect_length(rows, 5L)
    # The newest first, and those with an alarming verdict red.
    expect_match(rows[1], "opens red\" data-round=\"5\"")
    expect_match(html(output$rounds), "1 quarantined, 1 failed")
    expect_match(html(output$rounds), "kept the model")
    expect_equal(html(output$banner), "")
    expect_equal(nchar(output$accuracy$src) > 1000, TRUE)
    expect_match(output$accuracy$alt, "reached 90% in round 2")
  })
})

test_that("a click on a round shows its clients with verdict, share, factors and reason, escaped", {
  shiny::testServer(watching(run_by_hand()), {
    session$setInputs(round = 3)
    shown <- html(output$detail)
    expect_match(shown, "Round 3")
    expect_match(shown, "badge red\">quarantined")
    expect_match(shown, "60.0%")
    expect_match(shown, "samples 35, gate 0.9")
    expect_false(grepl("<script", shown))
    expect_match(shown, "&lt;script&gt;")
    expect_false(grepl("\u202e", shown))
    # The conspicuous first.
    expect_lt(regexpr("mallory", shown), regexpr("anna", shown))
    session$setInputs(close = 1)
    expect_equal(html(output$detail), "")
  })
})

test_that("a click on a client shows its rounds, and a click in the picture the nearest round", {
  shiny::testServer(watching(run_by_hand()), {
    session$setInputs(node = "mallory")
    shown <- html(output$detail)
    for (word in c("damped", "quarantined", "probation")) expect_match(shown, word)
    session$setInputs(node = "<nobody>")
    expect_match(html(output$detail), "&lt;nobody&gt;")
    expect_match(html(output$detail), "none of the rounds in view")
    session$setInputs(accuracy_click = list(x = 2.3, y = 0.5))
    expect_match(html(output$detail), "Round 2")
    session$setInputs(round = 99)
    expect_match(html(output$detail), "no round 99")
  })
})

test_that("new rounds appear by themselves", {
  folder <- run_by_hand(1:2)
  shiny::testServer(watching(folder), {
    expect_match(html(output$facts), "2 of 5")
    write_rounds(folder, 3:4, append = TRUE)
    session$elapse(1100)
    expect_match(html(output$facts), "4 of 5")
  })
})

test_that("an empty run says so", {
  shiny::testServer(watching(run_by_hand(integer())), {
    expect_match(html(output$rounds), "No round has opened yet")
    expect_match(html(output$evaluated), "No round was evaluated yet")
  })
})

# A source that goes away and comes back, as a coordinator does.
test_that("while the source is away the page says so, keeps what it has, and looks ever more seldom", {
  real <- source_of(run_by_hand())
  there <- TRUE
  looks <- 0
  flaky <- c(list(federations = function() {
    looks <<- looks + 1
    if (!there) unreachable("https://127.0.0.1:1 did not answer (<b>)")
    real$federations()
  }), real[setdiff(names(real), "federations")])
  shiny::testServer(dashboard_server(function() flaky, 1), {
    expect_equal(html(output$banner), "")
    there <<- FALSE
    session$elapse(1100)
    expect_match(html(output$banner), "Paused")
    expect_match(html(output$banner), "did not answer \\(&lt;b&gt;\\)")
    expect_match(html(output$banner), "What is shown is from")
    expect_match(html(output$facts), "5 of 5")
    before <- looks
    for (i in 1:12) session$elapse(1000)
    # After 1.5, 3.75, 7.1 and 12.2 seconds, and not every second.
    expect_lte(looks - before, 4)
    expect_gte(looks - before, 2)
    there <<- TRUE
    session$setInputs(again = 1)
    expect_equal(html(output$banner), "")
  })
})

test_that("several federations can be chosen from, each page for itself", {
  info <- function(name, closed) list(
    name = name, state = "running", rounds = 9L, closed = closed, version = closed, reason = "", nodes = 0L
  )
  asked <- NULL
  mute <- function() {
    coordinator_source(list(address = "https://127.0.0.1:1", look_up = function(...) {
      path <- paste(unlist(list(...)), collapse = "/")
      asked <<- c(asked, path)
      if (path == "federations") return(list(info("one", 1L), info("two", 2L)))
      list()
    }))
  }
  shiny::testServer(dashboard_server(mute, 1), {
    expect_match(html(output$heading), "<option value=\"two\">")
    expect_match(html(output$facts), "1 of 9")
    session$setInputs(federation = "two")
    expect_match(html(output$facts), "2 of 9")
    expect_true(any(grepl("federations/two/rounds", asked)))
  })
})

test_that("only pages of this address are answered", {
  asks <- function(host, origin = NULL, local = TRUE) admits(
    list(HTTP_HOST = host, HTTP_ORIGIN = origin), local
  )
  expect_true(asks("127.0.0.1:8080"))
  expect_true(asks("localhost:8080", "http://localhost:8080"))
  expect_true(asks("[::1]:8080", "http://[::1]:8080"))
  # Another page of the web opens a socket; a name of the web leads here.
  expect_false(asks("127.0.0.1:8080", "https://evil.example"))
  expect_false(asks("127.0.0.1:8080", "http://127.0.0.1:9999"))
  expect_false(asks("127.0.0.1:8080", "null"))
  expect_false(asks("evil.example:8080", "http://evil.example:8080"))
  expect_false(asks(NULL))
  # On purpose for others, but still only for its own pages.
  expect_true(asks("stats.example", "https://stats.example", local = FALSE))
  expect_false(asks("stats.example", "https://evil.example", local = FALSE))
})

test_that("a node that is not there, or was shut out, is red", {
  node <- function(name, state, last_seen) {
    list(
      name = name, role = "node", state = state, federation = "f", examples = 1200L, doing = "waits",
      last_seen = last_seen, software = "haina-r <1>"
    )
  }
  nodes <- list(node("here", "active", 995), node("gone", "active", 100), node("out", "revoked", 995))
  shown <- as.character(dress_nodes(nodes, list(), list(state = "running"), "coordinator", now = 1000))
  rows <- regmatches(shown, gregexpr("<tr class=\"opens[^>]*>", shown))[[1]]
  expect_equal(grepl("red", rows), c(FALSE, TRUE, TRUE))
  expect_match(shown, "15 min ago")
  expect_match(shown, "1,200")
  expect_match(shown, "haina-r &lt;1&gt;")
})
