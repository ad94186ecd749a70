# Where figures come from: a coordinator, or the folder of a run on this machine. Both answer the same few questions in the same form, so that a
# report and a dashboard need not know which it is.
#
#   federations()   FederationInfo of each (`haina.wire.messages`)
#   overview(every) that of the chosen one
#   choose(name)    choose another; with `unless_chosen`, only where none is chosen yet
#   rounds(last)    RoundInfo of the newest rounds, oldest first; of a coordinator without the clients of their records
#   round(number)   one RoundInfo with its whole record
#   nodes()         NodeInfo of the federation's nodes
#
# A round that has ended does not change any more, so it is asked for once.

# The source in a folder. `federation` may be NULL where there is one only.
source_of <- function(folder, federation = NULL) {
  if (!is.character(folder) || length(folder) != 1L || !dir.exists(folder)) {
    haina_stop(sprintf("there is no folder %s", paste(format(folder), collapse = ", ")), remedy = NEEDED)
  }
  if (file.exists(file.path(folder, ADDRESS))) return(coordinator_source(viewer(folder), federation))
  if (file.exists(file.path(folder, "federation.toml"))) return(run_source(folder))
  haina_stop(sprintf("%s is neither a run nor a viewer", folder), remedy = NEEDED)
}

NEEDED <- paste(
  "Name a folder of credentials (made by haina join), a coordinator's state folder,",
  "or the folder of a run (runs/NAME)"
)

# What a round that has ended is called.
ENDED <- c("closed", "failed")

# ------------------------------------------------------------------------------------------- a coordinator

coordinator_source <- function(viewer, federation = NULL) {
  ended <- new.env(parent = emptyenv())
  federations <- function() viewer$look_up("federations")
  chosen <- function() {
    if (!is.null(federation)) return(federation)
    names <- names_of(federations())
    if (length(names) != 1L) {
      haina_stop(
        sprintf("there are %d federations, and none is named", length(names)),
        allowed = paste(names, collapse = ", "), remedy = "Name one: federation = \"NAME\"",
        class = "haina_refusal"
      )
    }
    federation <<- names
    names
  }
  overview <- function(every = federations()) {
    name <- chosen()
    mine <- Filter(function(info) identical(info$name, name), every)
    if (length(mine)) return(mine[[1]])
    allowed <- paste(names_of(every), collapse = ", ")
    haina_stop(sprintf("there is no federation %s", plain(name)), allowed = allowed, class = "haina_refusal")
  }
  round <- function(number) {
    key <- as.character(number)
    if (!is.null(ended[[key]])) return(ended[[key]])
    info <- viewer$look_up("federations", chosen(), "rounds", number)
    if (info$state %in% ENDED) assign(key, info, envir = ended)
    info
  }
  choose <- function(name, unless_chosen = FALSE) {
    if (is.null(federation) || !unless_chosen) federation <<- name
  }
  rounds <- function(last = 200L) {
    viewer$look_up("federations", chosen(), "rounds", query = list(last = last))
  }
  nodes <- function() {
    mine <- function(node) identical(node$role, "node") && identical(node$federation, chosen())
    Filter(mine, viewer$look_up("nodes"))
  }
  list(
    kind = "coordinator", where = viewer$address, federations = federations, overview = overview,
    choose = choose, rounds = rounds, round = round, nodes = nodes
  )
}

names_of <- function(every) vapply(every, function(info) info$name, "")

# ------------------------------------------------------------------------------------------- a run's folder

run_source <- function(folder) {
  lines <- file.path(folder, "rounds.jsonl")
  settings <- readLines(file.path(folder, "federation.toml"), warn = FALSE, encoding = "UTF-8")
  found <- toml_value(settings, "name", "\"([^\"]*)\"")
  name <- if (is.na(found)) basename(normalizePath(folder)) else found
  planned <- suppressWarnings(as.integer(toml_value(settings, "rounds", "([0-9]+)")))
  records <- list()
  read <- 0
  # A run grows line by line; only what is new is read. A run that was started over has a shorter file at first.
  fresh <- function() {
    size <- file.size(lines)
    if (is.na(size)) size <- 0
    if (size < read) {
      records <<- list()
      read <<- 0
    }
    if (size > read) {
      file <- file(lines, "rb")
      on.exit(close(file))
      seek(file, read)
      bytes <- readBin(file, "raw", size - read)
      whole <- which(bytes == as.raw(10L))
      # A line without its end is still being written.
      if (length(whole)) {
        text <- rawToChar(bytes[seq_len(max(whole))])
        Encoding(text) <- "UTF-8"
        new <- lapply(strsplit(text, "\n", fixed = TRUE)[[1]], record_of, path = lines)
        records <<- c(records, new)
        read <<- read + max(whole)
      }
    }
    records
  }
  info_of <- function(record) {
    verdicts <- vapply(record$clients, function(client) client$verdict, "")
    list(
      federation = name, number = record$round, state = if (record$outcome == "kept") "failed" else "closed",
      invited = length(verdicts), arrived = sum(!verdicts %in% c("failed", "absent")),
      failed = sum(verdicts == "failed"), reason = record$reason, record = record, failures = list(),
      stage = ""
    )
  }
  overview <- function() {
    all <- fresh()
    last <- if (length(all)) all[[length(all)]] else list()
    done <- file.exists(file.path(folder, "summary.json"))
    list(
      name = name, state = if (done) "finished" else "running", rounds = planned, closed = length(all),
      reason = "", nodes = length(last$clients)
    )
  }
  list(
    kind = "run", where = folder, federations = function() list(overview()),
    overview = function(every = NULL) overview(),
    choose = function(name, unless_chosen = FALSE) invisible(),
    rounds = function(last = 200L) lapply(utils::tail(fresh(), last), info_of),
    round = function(number) {
      mine <- Filter(function(record) record$round == number, fresh())
      if (!length(mine)) haina_stop(sprintf("there is no round %s in this run", number))
      info_of(mine[[length(mine)]])
    },
    nodes = function() list()
  )
}

record_of <- function(line, path) {
  record <- tryCatch(jsonlite::fromJSON(line, simplifyVector = FALSE), error = function(e) NULL)
  if (is.null(record$round)) haina_stop(sprintf("%s has a line that is no record of a round", path))
  record
}

# The first value of a key at the beginning of a line; NA where there is none. Enough for a name and a number: R reads no TOML.
toml_value <- function(lines, key, pattern) {
  found <- regmatches(lines, regexec(sprintf("^\\s*%s\\s*=\\s*%s", key, pattern), lines, perl = TRUE))
  found <- Filter(length, found)
  if (length(found)) found[[1]][2] else NA_character_
}
