# A run's folder as the simulation writes it, by hand: five rounds, four clients. `mallory` is damped in round 2, quarantined in 3 and 4 and released
# in 5; round 4 keeps the old model; `dora` fails always, with a reason that tries to be markup.

NASTY <- "<script>document.title='taken'</script> & \"quoted\" \u202e"

client_line <- function(client, verdict, share, trust = NULL, reason = "") {
  list(
    client = client, verdict = verdict, share = share, prior = share,
    factors = list(samples = 35, trust = if (is.null(trust)) 1 else trust),
    evidence = if (is.null(trust)) structure(list(), names = character()) else list(trust = trust),
    report = list(examples = 35), norm = 1,
    clip = 1, reason = reason
  )
}

round_line <- function(number) {
  conduct <- list(
    list("admitted", 0.25, 0.6), list("damped", 0.1, 0.4), list("quarantined", 0, 0.2),
    list("quarantined", 0, 0.1), list("probation", 0.05, 0.5)
  )[[number]]
  rest <- 1 - conduct[[2]]
  kept <- number == 4L
  accuracy <- c(0.5, 0.92, 0.85, NA, 0.95)[number]
  list(
    round = number, outcome = if (kept) "kept" else "stepped",
    clients = list(
      client_line("anna", "admitted", 0.6 * rest, 0.9), client_line("boris", "admitted", 0.4 * rest, 0.8),
      client_line("mallory", conduct[[1]], conduct[[2]], conduct[[3]]),
      client_line("dora", "failed", NULL, reason = NASTY)
    ),
    reason = if (kept) "the server's step gave a model that is not finite" else "",
    model = strrep(as.character(number), 64), parent = "",
    notes = list(effective_clients = 2), decisions = list(arbiter = "mean"),
    metrics = if (kept) structure(list(), names = character()) else list(accuracy = accuracy, loss = 1 / number),
    timing = list(total = 0.5)
  )
}

write_rounds <- function(folder, numbers, append = FALSE) {
  lines <- vapply(numbers, function(number) {
    as.character(jsonlite::toJSON(round_line(number), auto_unbox = TRUE, digits = NA, null = "null"))
  }, "")
  file <- file(file.path(folder, "rounds.jsonl"), if (append) "ab" else "wb")
  on.exit(close(file))
  writeBin(charToRaw(paste0(lines, "\n", collapse = "")), file)
}

run_by_hand <- function(numbers = 1:5) {
  folder <- tempfile("run-")
  dir.create(folder)
  writeLines(c("name = \"by hand\"", "[train]", "rounds = 5"), file.path(folder, "federation.toml"))
  if (length(numbers)) write_rounds(folder, numbers)
  folder
}

# What a picture draws: the colours and line types of its layers.
drawn <- function(picture) {
  built <- ggplot2::ggplot_build(picture)
  Map(function(layer, data) {
    list(
      geom = class(layer$geom)[1], colour = unique(data$colour), linetype = unique(data$linetype), y = data$y,
      at = data$yintercept
    )
  }, built$plot$layers, built$data)
}
