# What is behind the dashboard: looks at the source again and again, and dresses what it sees (dashboard_page.R).
#
# Rounds in view, and of how many the clients are asked for at the first look.
IN_VIEW <- 100L
# Rounds with more clients than this are told whole when they are opened, and not before.
WHOLE_UP_TO <- 2000L
# Seconds to wait at most while the coordinator is away.
LONGEST_WAIT <- 60

# The server function of the app.
dashboard_server <- function(open, every = 5, threshold = 0.9, window = 5) {
  function(input, output, session) {
    source <- open()
    view <- live_view(source, every, session, input)
    chosen <- shiny::reactiveVal(NULL)
    # A turn makes every click a new choice, also of what is open already.
    choose <- function(kind, key) chosen(list(kind = kind, key = key, turn = c(chosen()$turn, 0)[1] + 1))
    shiny::observeEvent(input$round, choose("round", as.integer(input$round)))
    shiny::observeEvent(input$node, choose("node", as.character(input$node)))
    shiny::observeEvent(input$close, chosen(NULL))
    shiny::observeEvent(input$federation, chosen(NULL), ignoreInit = TRUE)
    shiny::observeEvent(input$accuracy_click, {
      points <- measured(view$rounds(), "accuracy")
      if (nrow(points)) {
        nearest <- points$round[which.min(abs(points$round - input$accuracy_click$x))]
        choose("round", as.integer(nearest))
      }
    })

    output$heading <- steadily(function() dress_heading(view$overview(), view$federations(), source))
    output$banner <- steadily(function() dress_banner(view$trouble(), view$seen()))
    output$facts <- steadily(function() {
      if (!is.null(view$overview())) dress_facts(view$overview(), view$rounds(), view$nodes())
    })
    output$rounds <- steadily(function() {
      dress_rounds(view$rounds(), view$overview(), view$trouble(), !is.null(input$all))
    })
    output$nodes <- steadily(
      function() dress_nodes(view$nodes(), view$rounds(), view$overview(), source$kind)
    )
    output$detail <- steadily(function() dress_detail(chosen(), view, source))
    output$evaluated <- steadily(function() {
      dress_evaluated(view$overview(), nrow(measured(view$rounds(), "accuracy")) > 0L, threshold, window)
    })
    output$accuracy <- shiny::renderPlot(
      {
        points <- measured(view$rounds(), "accuracy")
        shiny::req(nrow(points) > 0L)
        draw_accuracy(points, threshold, window) + ggplot2::labs(title = NULL, subtitle = NULL)
      },
      res = 96, alt = function() {
        points <- measured(view$rounds(), "accuracy")
        sub("^It ", "Accuracy over rounds: it ", if (nrow(points)) crossing(points, threshold) else "")
      }
    )
  }
}

# An output that is sent only where its HTML is another than before: what a reader has opened, marked or focused stays.
steadily <- function(dressed) {
  html <- shiny::reactiveVal("")
  shiny::observe(html(paste(as.character(dressed()), collapse = "")))
  shiny::renderUI(shiny::HTML(html()))
}

# How things stand, as reactive values that change only where something did: `overview`, `federations`, `rounds`, `nodes`; `trouble` (why the source
# does not answer, or NULL) and `seen` (when it last did, seconds since 1970).
live_view <- function(source, every, session, input) {
  view <- list(
    overview = shiny::reactiveVal(NULL), federations = shiny::reactiveVal(character()),
    rounds = shiny::reactiveVal(list()), nodes = shiny::reactiveVal(list()),
    trouble = shiny::reactiveVal(NULL), seen = shiny::reactiveVal(NA_real_)
  )
  wait <- every
  shiny::observeEvent(input$federation, {
    source$choose(input$federation)
    view$rounds(list())
  }, ignoreInit = TRUE, priority = 1)
  shiny::observe({
    input$again
    input$federation
    looked <- tryCatch(look_at(source), error = function(e) conditionMessage(e))
    if (is.character(looked)) {
      # Away: what was last seen stays, and the next look comes later and later.
      view$trouble(looked)
      wait <<- min(LONGEST_WAIT, wait * 1.5)
    } else {
      view$overview(looked$overview)
      view$federations(looked$federations)
      view$rounds(looked$rounds)
      view$nodes(looked$nodes)
      view$trouble(NULL)
      wait <<- every
      view$seen(as.numeric(Sys.time()))
    }
    shiny::invalidateLater(wait * 1000, session)
  })
  view
}

# One look: everything that is in view.
look_at <- function(source) {
  every <- source$federations()
  names <- names_of(every)
  if (length(names)) source$choose(names[1], unless_chosen = TRUE)
  overview <- source$overview(every)
  rounds <- lapply(source$rounds(IN_VIEW), function(info) {
    whole <- is.null(info$record) || length(info$record$clients) || info$invited > WHOLE_UP_TO
    if (whole) info else source$round(info$number)
  })
  list(federations = names, overview = overview, rounds = rounds, nodes = source$nodes())
}
