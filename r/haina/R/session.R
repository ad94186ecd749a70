# A site's life: say hello, ask, train, deliver; and start again from wherever it was stopped.
#
# Everything that must survive a kill lies in the site's folder: identity, outbox, promise, the last good settings, cached models. The network may
# vanish at any moment and for any time: every call is repeated with back-off until it answers, and nothing is repeated that would count twice.
#
# R does one thing at a time: while a function trains, nobody hears of this site. That is no failure before the round's deadline.

SOFTWARE <- "haina-r"
PROTOCOLS <- 1
CODECS <- c("float32", "raw")
# Seconds of one long-poll, and tries of an upload before a refusal is believed that may be of its way and not of itself.
WAIT <- 50
TRIES <- 6

# What a site knows while it runs: an environment, because it changes.
new_site <- function(folder, train, data, examples, periodic, once, dataset, budget, tell) {
  own <- load_credentials(folder)
  site <- new.env(parent = emptyenv())
  site$folder <- folder
  site$address <- load_address(folder)$http
  site$train <- train
  site$data <- data
  site$examples <- examples
  site$periodic <- periodic
  site$once <- once
  site$dataset <- dataset
  site$budget <- budget
  # Words of the network may not steer the terminal that they are shown on.
  site$tell <- function(line) tell(gsub("[[:cntrl:]]", " ", line))
  site$delivered <- 0
  site$rounds <- 0
  site$settings <- restored_settings(folder)
  site$software <- paste(SOFTWARE, utils::packageVersion("haina"))
  use_identity(site, own)
}

use_identity <- function(site, own) {
  authority <- file.path(site$folder, "authority.pem")
  write_whole(authority, own$authority)
  site$own <- own
  site$door <- list(address = site$address, authority = authority, identity = file.path(site$folder, IDENTITY))
  site
}

# Take part until the federation ends, or, with `once`, until one update is acknowledged. Returns why it ended.
live <- function(site) {
  welcomed(site)
  for (parcel in outbox_waiting(site$outbox)) deliver(site, parcel)
  while (!(site$once && site$delivered > 0)) {
    event <- asked(site)
    if (isTRUE(event$finished)) return(if (nzchar(event$reason)) event$reason else "the federation has ended")
    if (!is.null(event$task)) take_round(site, event$task)
    if (!is.null(event$sealed)) {
      sealing(site, "step", event$sealed)
    } else if (site$periodic && is.null(site$part) && !(site$once && site$delivered > 0)) {
      rest(site, site$settings$values$report_interval)
    } else if (is.null(event$task)) {
      rest(site, event$retry)
    }
  }
  "one update was delivered"
}

# The first words: what the federation is, whether this site can keep its part, and how many rows it has.
welcomed <- function(site) {
  welcome <- patiently(site, function() say_hello(site))
  if (!isTRUE(welcome$protocol %in% PROTOCOLS)) {
    haina_stop(sprintf("the coordinator speaks version %s of the protocol", welcome$protocol), "1", "Install the newest haina for R")
  }
  if (!grepl(NAME, welcome$federation) || !nzchar(welcome$brief)) {
    haina_stop("the coordinator does not describe the federation to R", remedy = "It must run haina 0.1.0 or newer")
  }
  welcome$brief_text <- welcome$brief
  welcome$brief <- from_json(welcome$brief, "the federation's description")
  site$federation <- welcome$federation
  site$brief <- welcome$brief
  site$columns <- if (nzchar(welcome$columns)) from_json(welcome$columns, "the federation's columns")
  folder <- file.path(site$folder, welcome$federation)
  site$outbox <- file.path(folder, "outbox")
  site$models <- file.path(folder, "models")
  hold_promise(folder, welcome)
  site$brief <- borne_out(welcome$brief)
  site$policy <- policy_of(site$brief)
  if (isTRUE(site$brief$remembers)) {
    haina_stop("the federation's strategy keeps a vector at each client (SCAFFOLD, FedDyn), which R trainers do not",
               "strategies without memory at the clients", "Ask the operator, or take part with a Python node")
  }
  if (!any(CODECS %in% unlist(site$brief$codecs))) {
    haina_stop(paste("updates are to be written as", paste(unlist(site$brief$codecs), collapse = ", ")), "float32 and raw from R",
               "Ask the operator to add \"float32\" to [serve] codecs")
  }
  for (promise in site$brief$promises) site$tell(promise)
  if (!length(site$brief$promises)) {
    site$tell("nothing is promised of what this site sends: there is no [privacy] in the federation file")
  }
  sealing(site, "open")
  apply_settings(site, welcome$settings)
  welcome <- patiently(site, function() say_hello(site))
  apply_settings(site, welcome$settings)
  site$tell(sprintf("%s takes part in %s with %.0f examples", welcome$name, site$federation, site$examples))
}

say_hello <- function(site, mode = if (site$periodic) "periodic" else "rounds") {
  # Before the federation is known, nothing is said of the rows.
  shown <- if (is.null(site$federation)) 0 else if (is_hidden(site)) min(site$examples, 1) else site$examples
  hello <- list(software = site$software, protocols = as.list(PROTOCOLS), codecs = as.list(c(CODECS, secagg_codecs)), learners = list("r"),
                examples = shown, mode = mode, dataset = site$dataset)
  hello$federation <- site$federation
  hello$identity <- site$identity
  call_json(site$door, "POST", "/v1/hello", hello)
}

asked <- function(site) {
  # A secure sum does not wait for this site's own time.
  wait <- if (site$periodic && is.null(site$part)) 0 else WAIT
  ask <- list(federation = site$federation, settings_version = site$settings$version, wait = wait)
  event <- patiently(site, function() call_json(site$door, "POST", "/v1/ask", ask, wait), again = TRUE)
  apply_settings(site, event$settings)
  if (!is.null(event$task)) check_task(event$task)
  event
}

# A task as it must be: the model's hash becomes the name of a file, and the numbers decide what is read and written.
check_task <- function(task) {
  whole <- function(value) is.numeric(value) && length(value) == 1L && isTRUE(value >= 0 && value < 2^53 && value == trunc(value))
  good <- is_sha256(task$model) && whole(task$bytes) && whole(task$round) && whole(task$version)
  if (!good) {
    trust_stop("the coordinator's task is none: its model is no SHA-256, or a number of it is no whole number",
               remedy = "Ask the operator what runs there; nothing was read or written for it")
  }
}

# ------------------------------------------------------------------------------------------------ one round

take_round <- function(site, task) {
  if (!is.null(site$part) && sealing(site, "fits", task)) return(rest(site, 0.1))
  site$part <- NULL
  refused <- guard_refusal(site$guard, task$round)
  if (!is.null(refused)) {
    site$tell(sprintf("round %.0f: %s", task$round, conditionMessage(refused)))
    say_failed(site, task$round, refusal_words(refused))
    return(rest(site, 1))
  }
  path <- sprintf("/v1/federations/%s/blobs/%s", site$federation, task$model)
  model <- tryCatch(
    patiently(site, function() {
      cached(site$models, task$model, task$bytes, function(file, offset) call_download(site$door, path, file, offset, task$bytes))
    }),
    haina_refusal = identity
  )
  if (inherits(model, "error")) {
    # The round ended meanwhile, and its model is no longer given out.
    site$tell(sprintf("round %.0f: %s", task$round, conditionMessage(model)))
    return(rest(site, 1))
  }
  site$rounds <- task$round
  site$model <- model
  update <- tryCatch(trained(site, task, model), error = identity)
  if (inherits(update, "error")) {
    site$tell(sprintf("round %.0f: %s", task$round, conditionMessage(update)))
    return(say_failed(site, task$round, reason_of(update)))
  }
  if (is_hidden(site)) return(sealing(site, "advertise", task, update))
  announce(site, update$report$examples)
  refused <- may_leave(site, task$round)
  if (!is.null(refused)) return(say_failed(site, task$round, refused))
  manifest <- signed(manifest_of(site, task, update$body, task$codec, update$length, update$report), site$own$key)
  deliver(site, outbox_put(site$outbox, manifest, update$body), update$body)
}

# How many rows a trainer used is what this site announces, from now on: where shares are made before training, both must agree.
announce <- function(site, examples) {
  if (is_hidden(site) || examples == site$examples || examples != trunc(examples)) return(invisible())
  site$tell(sprintf("%.0f examples were announced, and train() used %.0f, which is announced from now on", site$examples, examples))
  site$examples <- examples
  patiently(site, function() say_hello(site))
  invisible()
}

manifest_of <- function(site, task, body, codec, length, report) {
  list(node = site$own$name, federation = task$federation, round = task$round, version = task$version, sha256 = sha256_hex(body),
       bytes = base::length(body), codec = codec, length = length, report = report)
}

deliver <- function(site, parcel, body = read_whole(parcel$body)) {
  manifest <- parcel$manifest
  reason <- send(site, manifest, parcel$text, body)
  outbox_forget(parcel)
  has_left(site, manifest$round)
  if (is.null(reason)) {
    site$delivered <- site$delivered + 1
    site$tell(sprintf("round %.0f: delivered (%.0f bytes)", manifest$round, manifest$bytes))
  } else {
    say_refused(site, manifest$round, reason)
  }
}

# Upload until there is an answer: why it was refused; NULL when it counts.
send <- function(site, manifest, text, body) {
  tries <- 0
  path <- round_path(manifest$federation, manifest$round, "update")
  once <- function() {
    tries <<- tries + 1
    offset <- 0
    if (tries > 1) {
      # A broken upload goes on where it stopped; one that was acknowledged unheard is done.
      here <- call_json(site$door, "GET", path)
      same <- identical(here$sha256, manifest$sha256)
      if (same && isTRUE(here$done)) return(NULL)
      if (same) offset <- here$bytes
    }
    rate <- site$settings$values$upload_bytes_per_second
    ack <- tryCatch(
      call_upload(site$door, path, text, body, offset, if (is.null(rate)) 0 else rate),
      haina_refusal = function(error) {
        if (error$code %in% c("range", "conflict", "malformed") && tries < TRIES) unreachable(error$what)
        stop(error)
      }
    )
    if (identical(ack$fate, "refused")) if (nzchar(ack$reason)) ack$reason else "refused"
  }
  tryCatch(patiently(site, once), haina_refusal = conditionMessage)
}

# Without a word the coordinator would go on to wait for this site, and to give it the same task.
say_refused <- function(site, round, reason) {
  site$tell(sprintf("round %.0f: the update was refused: %s", round, reason))
  say_failed(site, round, cut_text(paste("the update was refused:", reason)))
}

say_failed <- function(site, round, reason) {
  if (!nzchar(reason)) reason <- "it failed without a word"
  path <- round_path(site$federation, round, "failure")
  said <- list(federation = site$federation, round = round, reason = reason)
  tryCatch(patiently(site, function() call_json(site$door, "POST", path, said)),
           haina_refusal = function(error) site$tell(sprintf("round %.0f: %s", round, conditionMessage(error))))
  invisible()
}

# A goodbye, where there is somebody to hear it: this site is not invited until it says hello again.
leave <- function(site) {
  if (is.null(site$federation)) return(invisible())
  tryCatch(say_hello(site, "away"), error = function(error) NULL)
  invisible()
}

# ------------------------------------------------------------------------------------------------ patience

# Call until there is an answer, however long the coordinator is away. `again`: say hello after an outage, for the coordinator may be another.
patiently <- function(site, call, again = FALSE) {
  longest <- 0.5
  outage <- FALSE
  repeat {
    failed <- tryCatch(
      {
        keep_identity(site)
        if (outage && again) apply_settings(site, say_hello(site)$settings)
        return(call())
      },
      haina_unreachable = identity,
      haina_refusal = function(error) if (error$code %in% PASSING) error else stop(error)
    )
    outage <- outage || inherits(failed, "haina_unreachable")
    asked <- if (is.null(failed$retry)) 0 else min(failed$retry, 60)
    # Exponential back-off with full jitter (Brooker 2015), so that many sites that lost one coordinator do not come back together.
    wait <- max(longest * (0.1 + 0.9 * chance()), asked)
    longest <- min(10, 2 * longest)
    site$tell(sprintf("%s Trying again in %.1f s.", conditionMessage(failed), wait))
    rest(site, wait)
  }
}

# A number in [0, 1) that leaves R's own random numbers as they are.
chance <- function() sum(as.integer(openssl::rand_bytes(3L)) / 256^(1:3))

rest <- function(site, seconds) {
  if (is.numeric(seconds) && seconds > 0) Sys.sleep(seconds)
  invisible()
}

# The next certificate, when two thirds of this one's life are over. The key stays: updates that wait in the outbox are signed with it.
keep_identity <- function(site) {
  now <- as.double(Sys.time())
  own <- site$own
  if (own$expires <= now) {
    trust_stop(paste("the certificate of", own$name, "expired while the site was away"),
               remedy = sprintf("Ask the operator for a new invitation (haina invite %s), and join with it", own$name))
  }
  if (own$renewal > now) return(invisible())
  csr <- list(csr = certificate_request(own$key, own$name))
  answer <- call_json(c(site$door, last = TRUE), "POST", "/v1/renew", csr)
  use_identity(site, save_credentials(credentials(own$key, answer$certificate, answer$authority), site$folder))
  invisible()
}

# ------------------------------------------------------------------------------------------------ settings

apply_settings <- function(site, settings) {
  if (is.null(settings) || identical(settings, site$settings)) return(invisible())
  newer <- settings$version > site$settings$version
  site$settings <- settings
  write_whole(file.path(site$folder, "settings.json"), to_json(settings))
  if (newer) site$tell(sprintf("settings %.0f apply", settings$version))
  invisible()
}

restored_settings <- function(folder) {
  none <- list(version = 0, values = empty_object())
  path <- file.path(folder, "settings.json")
  if (!file.exists(path)) return(none)
  tryCatch(from_json(rawToChar(read_whole(path, MAX_SECRET)), path), error = function(error) none)
}
