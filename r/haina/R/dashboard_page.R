# The dashboard's page: tags from values. Every text goes through `plain`, and shiny's tags escape it.

# Rounds shown before the others are asked for.
NEWEST <- 12L
# Seconds without a word after which a node of a running federation is not there; nodes ask for work once a minute or more often.
QUIET <- 180

LOOKING <- "Looking ..."

dashboard_page <- function(every) {
  asset <- function(name) system.file("shiny", name, package = "haina", mustWork = TRUE)
  tag <- shiny::tags
  shiny::tagList(
    tag$head(
      tag$title("Haina"), tag$meta(name = "viewport", content = "width=device-width, initial-scale=1"),
      tag$link(rel = "icon", href = "data:,"), tag$meta(name = "color-scheme", content = "light dark"),
      tag$meta(name = "referrer", content = "no-referrer"),
      shiny::includeCSS(asset("dashboard.css")), shiny::includeScript(asset("dashboard.js"))
    ),
    tag$main(
      shiny::uiOutput("heading", container = tag$header),
      shiny::div(role = "status", `aria-live` = "polite", shiny::uiOutput("banner")),
      shiny::uiOutput("facts"),
      section("Accuracy", shiny::uiOutput("evaluated")),
      shiny::uiOutput("detail"),
      section("Rounds", shiny::uiOutput("rounds")),
      section("Nodes", shiny::uiOutput("nodes")),
      tag$p(class = "quiet", sprintf("Looks again every %g seconds. This page only reads.", every))
    )
  )
}

section <- function(title, ...) shiny::tags$section(shiny::tags$h2(title), ...)

dress_empty <- function(text) shiny::p(class = "empty", text)

# A table: rows are lists of cells, each a text or a tag; `words` says which columns hold words, the others are numbers.
dress_table <- function(columns, rows, words, label) {
  tag <- shiny::tags
  align <- ifelse(columns %in% words, "words", "number")
  head <- Map(function(name, class) tag$th(scope = "col", class = class, name), columns, align)
  dress <- function(cells) {
    of_row <- attributes(cells)[c("class_of_row", "data_round", "data_node")]
    do.call(tag$tr, c(
      unname(Map(function(cell, class, name) {
        tag$td(class = class, class = if (identical(cell, "")) "none", `data-label` = name, cell)
      }, cells, align, columns)),
      list(class = of_row$class_of_row, `data-round` = of_row$data_round, `data-node` = of_row$data_node)
    ))
  }
  shiny::div(
    class = "scroll", tabindex = "0", role = "region", `aria-label` = label,
    tag$table(tag$thead(tag$tr(unname(head))), tag$tbody(unname(lapply(rows, dress))))
  )
}

# A row of a table that opens a round or a node when it is clicked; its first cell is a button for the keyboard.
opening <- function(cells, round = NULL, node = NULL, red = FALSE) {
  button <- shiny::tags$button(
    type = "button", class = "open", `data-round` = round, `data-node` = node, cells[[1]]
  )
  cells[[1]] <- button
  structure(cells, class_of_row = if (red) "opens red" else "opens", data_round = round, data_node = node)
}

badge <- function(text, red = FALSE) shiny::span(class = if (red) "badge red" else "badge", plain(text, 30L))

# ------------------------------------------------------------------------------------------- the top of the page

dress_heading <- function(overview, federations, source) {
  if (is.null(overview)) return(shiny::tagList(shiny::h1("Haina"), shiny::p(class = "quiet", LOOKING)))
  choice <- if (length(federations) > 1L) {
    shiny::selectInput(
      "federation", "Federation", stats::setNames(federations, vapply(federations, plain, "")), overview$name,
      selectize = FALSE
    )
  }
  where <- plain(if (source$kind == "run") basename(normalizePath(source$where)) else source$where, 120L)
  kind <- if (source$kind == "run") "Run" else "Coordinator"
  shiny::tagList(
    shiny::h1(plain(overview$name, 80L), badge(overview$state, overview$state == "stopped")), choice,
    shiny::p(class = "quiet", sprintf("%s %s", kind, where)),
    if (nzchar(plain(overview$reason))) shiny::p(plain(overview$reason))
  )
}

dress_banner <- function(trouble, seen) {
  if (is.null(trouble)) return(NULL)
  shown <- sprintf("What is shown is from %s.", clock(seen, "%H:%M:%S"))
  if (is.na(seen)) shown <- "Nothing was seen yet."
  shiny::div(
    class = "banner", shiny::strong("Paused: the figures cannot be had at the moment. "), shown, shiny::br(),
    plain(trouble, 400L), shiny::br(),
    shiny::tags$button(type = "button", class = "again", "Try now")
  )
}

dress_facts <- function(overview, rounds, nodes) {
  fact <- function(name, value, ...) shiny::div(shiny::tags$dt(name), shiny::tags$dd(value, ...))
  planned <- known(overview, "rounds")
  total <- if (is.na(planned)) "" else sprintf(" of %d", as.integer(planned))
  accuracy <- measured(rounds, "accuracy")
  loss <- measured(rounds, "loss")
  troubled <- utils::tail(Filter(function(info) info$state == "failed" || alarming(info), rounds), 1L)
  shiny::tags$dl(
    fact("rounds closed", sprintf("%d%s", as.integer(overview$closed), total)),
    if (nrow(accuracy)) fact("accuracy", percent(accuracy$value[nrow(accuracy)])),
    if (nrow(accuracy)) fact("best accuracy", highest(accuracy)),
    if (nrow(loss)) fact("loss", number(loss$value[nrow(loss)])),
    fact("nodes", if (length(nodes)) length(nodes) else overview$nodes),
    if (!is.null(overview[["round"]])) fact("now", in_progress(overview[["round"]])),
    if (length(troubled)) fact("newest trouble", button_of_trouble(troubled[[1]]))
  )
}

highest <- function(points) {
  best <- points[which.max(points$value), ]
  sprintf("%s in round %d", percent(best$value), as.integer(best$round))
}

button_of_trouble <- function(info) {
  trouble <- trouble_of(info)
  if (!nzchar(trouble)) trouble <- "kept the old model"
  said <- sprintf("round %d: %s", as.integer(info$number), trouble)
  shiny::tags$button(type = "button", class = "open red", `data-round` = info$number, said)
}

in_progress <- function(info) {
  stage <- if (nzchar(plain(info$stage))) sprintf(", %s", plain(info$stage, 20L)) else ""
  sprintf(
    "round %d: %d of %d arrived%s", as.integer(info$number), as.integer(info$arrived),
    as.integer(info$invited), stage
  )
}

# Whether a reader should look at a round: by the verdicts, or by the number of failures where the clients are not known.
alarming <- function(info) {
  clients <- info$record$clients
  if (is.null(clients)) return(info$failed > 0)
  any(vapply(clients, function(client) client$verdict %in% ALARMING, TRUE))
}

# Where the picture of accuracy lies, once there is one.
dress_evaluated <- function(overview, there, threshold, window) {
  if (is.null(overview)) return(dress_empty(LOOKING))
  if (!there) {
    return(dress_empty("No round was evaluated yet. Accuracy needs test rows in the federation file."))
  }
  said <- "%s; dashed red: %.0f%%. Click a point to open its round."
  shiny::tagList(
    shiny::plotOutput("accuracy", height = "20rem", click = "accuracy_click"),
    shiny::p(class = "quiet", sprintf(said, reading(window), 100 * threshold))
  )
}

# ------------------------------------------------------------------------------------------- tables

# `all`: every round in view, and not the newest only.
dress_rounds <- function(rounds, overview, trouble, all = FALSE) {
  if (!length(rounds)) {
    if (is.null(overview)) return(dress_empty(if (is.null(trouble)) LOOKING else "Nothing was seen yet."))
    reason <- plain(overview$reason)
    if (nzchar(reason)) reason <- paste(": the federation", reason)
    return(dress_empty(paste0("No round has opened yet", reason, ".")))
  }
  shown <- if (all) length(rounds) else min(NEWEST, length(rounds))
  rows <- lapply(utils::head(rev(rounds), shown), function(info) {
    opening(list(
      as.character(info$number), standing_of(info), percent(known(info$record$metrics, "accuracy")),
      sprintf("%d/%d", as.integer(info$arrived), as.integer(info$invited)), trouble_of(info),
      duration(seconds_of(info))
    ), round = info$number, red = info$state == "failed" || alarming(info))
  })
  more <- length(rounds) - shown
  columns <- c("round", "outcome", "accuracy", "arrived", "trouble", "took")
  shiny::tagList(
    dress_table(columns, rows, c("outcome", "trouble"), "Rounds"),
    if (more > 0L) shiny::tags$button(type = "button", class = "all", sprintf("Show %d earlier rounds", more))
  )
}

standing_of <- function(info) {
  switch(info$state,
    closed = "made a model", failed = "kept the model", plain(info$state, 20L)
  )
}

seconds_of <- function(info) {
  if (is.numeric(info$closed) && is.numeric(info$opened)) return(info$closed - info$opened)
  known(info$record$timing, "total")
}

dress_nodes <- function(nodes, rounds, overview, kind, now = as.numeric(Sys.time())) {
  if (!length(nodes)) {
    if (kind == "run") return(dress_simulated(rounds))
    nobody <- "No node has joined yet. An operator invites them: haina invite NAME"
    return(dress_empty(if (is.null(overview)) LOOKING else nobody))
  }
  rows <- lapply(nodes, function(node) {
    quiet <- now - known(node, "last_seen")
    out <- node$state != "active"
    lost <- out || (overview$state == "running" && (is.na(quiet) || quiet > QUIET))
    state <- if (out) node$state else if (lost) "not there" else "there"
    opening(list(
      plain(node$name, 40L), badge(state, lost), ago(quiet), plain(node$doing, 40L),
      formatC(known(node, "examples"), format = "d", big.mark = ","), plain(node$group, 40L),
      plain(node$software, 40L)
    ), node = node$name, red = lost)
  })
  dress_table(
    c("node", "state", "last seen", "doing", "examples", "group", "software"), rows,
    c("node", "state", "last seen", "doing", "group", "software"), "Nodes"
  )
}

# The clients of a simulation, as its last round tells them.
dress_simulated <- function(rounds) {
  if (!length(rounds)) return(dress_empty("No round has closed yet."))
  last <- rounds[[length(rounds)]]
  dress_clients(clients_of(last$record))
}

dress_clients <- function(clients) {
  if (!nrow(clients)) return(dress_empty("Nobody was invited."))
  rows <- lapply(seq_len(nrow(clients)), function(i) {
    one <- clients[i, ]
    opening(list(
      substr(one$client, 1L, 40L), badge(one$verdict, one$verdict %in% ALARMING), percent(one$share),
      percent(one$prior), one$factors, score(one$trust), one$reason
    ), node = one$client, red = one$verdict %in% ALARMING)
  })
  dress_table(
    c("client", "verdict", "share", "prior", "factors", "trust", "reason"), rows,
    c("client", "verdict", "factors", "reason"), "Clients"
  )
}
