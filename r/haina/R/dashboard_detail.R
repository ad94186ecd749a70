# What is shown when a round or a node is opened.

# `chosen`: NULL, or a list of `kind` ("round" or "node"), `key` and `turn`, which tells one click from the next.
dress_detail <- function(chosen, view, source) {
  if (is.null(chosen)) return(NULL)
  inside <- tryCatch(
    switch(chosen$kind,
      round = detail_of_round(chosen$key, view, source), node = detail_of_node(chosen$key, view)
    ),
    error = function(e) shiny::p(class = "red", plain(conditionMessage(e), 400L))
  )
  title <- if (chosen$kind == "round") sprintf("Round %d", chosen$key) else plain(chosen$key, 40L)
  shiny::tags$section(
    id = "opened", class = "opened", tabindex = "-1", `data-turn` = chosen$turn, `aria-label` = title,
    shiny::tags$button(type = "button", class = "close", `aria-label` = "Close", "\u00d7"),
    shiny::tags$h2(title), inside
  )
}

detail_of_round <- function(number, view, source) {
  under_way <- Filter(function(info) info$number == number && !info$state %in% ENDED, view$rounds())
  info <- if (length(under_way)) under_way[[1]] else source$round(number)
  shiny::tagList(
    shiny::p(told(info)), if (nzchar(plain(info$reason))) shiny::p(class = "red", plain(info$reason, 400L)),
    said_of(info$record$decisions, "Decided"),
    if (!is.null(info$record)) dress_clients(clients_of(info$record)), traces(info$failures)
  )
}

# One sentence on how a round stands.
told <- function(info) {
  numbers <- c(
    accuracy = percent(known(info$record$metrics, "accuracy")),
    loss = number(known(info$record$metrics, "loss"))
  )
  numbers <- numbers[numbers != NONE]
  measured <- if (length(numbers)) paste(names(numbers), numbers, collapse = ", ") else "not evaluated"
  came <- sprintf("%d of %d updates arrived", as.integer(info$arrived), as.integer(info$invited))
  switch(info$state,
    closed = sprintf("Made a new model: %s. %s, in %s.", measured, came, duration(seconds_of(info))),
    failed = sprintf("Kept the old model. %s.", came),
    sprintf(
      "Is %s: %s; %d make a model at the deadline, %s.", plain(info$state, 20L), came,
      as.integer(info$quorum), clock(known(info, "deadline"), "%H:%M:%S")
    )
  )
}

said_of <- function(words, title) {
  if (!length(words)) return(NULL)
  names <- vapply(names(words), plain, "", limit = 40L)
  words <- vapply(words, plain, "", limit = 80L)
  shiny::p(class = "quiet", sprintf("%s: %s.", title, paste(names, words, sep = ": ", collapse = "; ")))
}

# Where in the code of a node that was that could not train.
traces <- function(failures) {
  lapply(names(failures), function(name) {
    lines <- strsplit(as.character(failures[[name]]), "\n", fixed = TRUE)[[1]]
    lines <- vapply(lines, plain, "", limit = 300L)
    if (length(lines)) {
      shiny::tags$details(
        shiny::tags$summary(sprintf("%s failed here", plain(name, 40L))),
        shiny::tags$pre(paste(lines, collapse = "\n"))
      )
    }
  })
}

detail_of_node <- function(name, view) {
  nodes <- Filter(function(node) identical(node$name, name), view$nodes())
  mine <- lapply(rev(view$rounds()), function(info) {
    client <- Filter(function(client) identical(client$client, name), info$record$clients)
    if (!length(client)) return(NULL)
    cells <- clients_of(list(clients = client))
    opening(list(
      as.character(info$number), badge(cells$verdict, cells$verdict %in% ALARMING), percent(cells$share),
      cells$factors, score(cells$trust), cells$reason
    ), round = info$number, red = cells$verdict %in% ALARMING)
  })
  mine <- Filter(Negate(is.null), mine)
  shiny::tagList(
    if (length(nodes)) facts_of_node(nodes[[1]]),
    if (length(mine)) {
      columns <- c("round", "verdict", "share", "factors", "trust", "reason")
      dress_table(columns, mine, c("verdict", "factors", "reason"), "Rounds of this node")
    } else {
      dress_empty("It is in none of the rounds in view.")
    }
  )
}

facts_of_node <- function(node) {
  facts <- c(
    state = plain(node$state), "last seen" = clock(known(node, "last_seen")),
    joined = clock(known(node, "joined"), "%Y-%m-%d"),
    "certificate until" = clock(known(node, "certificate_expires"), "%Y-%m-%d"),
    examples = number(known(node, "examples")),
    group = plain(node$group), codec = plain(node$codec), software = plain(node$software),
    "data set" = plain(node$dataset)
  )
  facts <- facts[nzchar(facts)]
  shiny::tags$dl(
    lapply(names(facts), function(name) shiny::div(shiny::tags$dt(name), shiny::tags$dd(facts[[name]])))
  )
}
