# A person's function as a trainer: what it is told, what it may answer, and what becomes of the answer.
#
# Whatever is wrong is refused here, before anything is sent, in words for the person who wrote the function. What travels of a failure is R's own
# message, cut to 1000 characters: a function must not put rows into its messages.

# Numbers of a report that the coordinator knows by name; other metrics are shown, and never used for weights.
REPORTED <- c("normalizer", "learning_rate", "loss_before", "loss_after", "accuracy", "seconds")

# What `train` is told of a round.
round_config <- function(site, task, layout) {
  own <- c("round", "version", "learning_rate", "proximal", "epochs", "steps", "batch_size", "momentum", "weight_decay",
           "clip_norm", "seed", "seconds")
  config <- task[intersect(own, names(task))]
  brief <- site$brief
  c(config, list(
    federation = site$federation, site = site$own$name, measure = unlist(task$measure), data = site$data,
    file = brief$file, payload = brief$payload, length = brief$length, learner = brief$learner,
    names = coefficient_names(brief), columns = site$columns, layout = layout,
    threads = site$settings$values$threads, settings = site$settings$values
  ))
}

# Names of the coefficients, where the federation has agreed on some.
coefficient_names <- function(brief) unlist(brief$learner$coefficients)

# Train one task: a list of `body` (raw), `length` and `report`, or a list of `vector` and `report` where updates are hidden; an error says why not.
trained <- function(site, task, model) {
  departs <- if (!is.null(site$policy)) task_departure(task, site$brief)
  if (!is.null(departs)) haina_stop(paste("the task is not as promised:", departs))
  if (!is.null(task$control)) {
    haina_stop("the federation corrects local training with a control vector, which R trainers do not apply",
               "strategies without memory at the clients (not SCAFFOLD, not FedDyn)")
  }
  payload <- site$brief$payload
  document <- length(model) && model[[1L]] == as.raw(0x7b)
  received <- if (document) list(params = model, layout = list()) else model_params(model)
  params <- received$params
  names <- coefficient_names(site$brief)
  if (!document && length(names) == length(params)) names(params) <- names
  config <- round_config(site, task, received$layout)
  answer <- with_time_limit(site$train(params, config), max(60, 2 * task$seconds))
  report <- checked_report(answer, task, site)
  if (payload == "collect") {
    body <- checked_document(answer$document)
    return(list(body = body, length = 0, report = report))
  }
  wanted <- if (payload == "sum") site$brief$length else length(params)
  vector <- checked_params(answer$params, wanted, names(params))
  if (payload == "average") vector <- vector - unname(params)
  if (is_hidden(site)) return(list(vector = vector, report = report))
  sent <- sent_update(site, vector, report, task)
  list(body = vector_bytes(sent$vector, task$codec), length = length(sent$vector), report = sent$report)
}

# A call that R stops when it takes longer; it is asked between R's own steps, not inside compiled code.
with_time_limit <- function(call, seconds) {
  setTimeLimit(elapsed = seconds, transient = TRUE)
  on.exit(setTimeLimit(elapsed = Inf))
  call
}

checked_params <- function(params, wanted, names = NULL) {
  if (!is.numeric(params)) {
    haina_stop(paste("train() returned params of type", class(params)[[1L]]), sprintf("a numeric vector of %.0f numbers", wanted))
  }
  given <- names(params)
  params <- as.double(params)
  if (length(params) != wanted) {
    haina_stop(sprintf("train() returned %d params", length(params)), sprintf("%.0f, as the federation asks", wanted))
  }
  if (length(given) && length(names)) {
    # Another order of the same names is a mistake that numbers alone would hide.
    if (!identical(sort(given), sort(names))) {
      haina_stop("train() returned params with other names than those of the federation", cut_text(paste(names, collapse = ", "), 500L))
    }
    params <- params[match(names, given)]
  }
  if (!all(is.finite(params))) {
    haina_stop(sprintf("train() returned %d params that are NA, NaN or infinite", sum(!is.finite(params))), "finite numbers",
               "Did the fit fail or a column vary too little?")
  }
  params
}

checked_document <- function(document) {
  if (is.character(document) && length(document) == 1L) document <- charToRaw(enc2utf8(document))
  if (!is.raw(document) || !length(document)) {
    haina_stop("train() returned no document", "list(document = <raw vector or text>, n = , metrics = )")
  }
  document
}

# The report: examples, steps, and what the person measured. Steps are 1 where the function does not say.
checked_report <- function(answer, task, site) {
  if (!is.list(answer)) {
    haina_stop(paste("train() returned", class(answer)[[1L]]), "list(params = , n = , metrics = )")
  }
  n <- answer$n
  if (!is.numeric(n) || length(n) != 1L || !isTRUE(n > 0 && n <= 1e12)) {
    haina_stop("train() did not say on how many rows it trained", "n = a number >= 1", "return(list(params = , n = nrow(data)))")
  }
  metrics <- as.list(answer$metrics)
  usable <- vapply(metrics, function(x) is.numeric(x) && length(x) == 1L, NA)
  if (length(metrics) && (is.null(names(metrics)) || !all(nzchar(names(metrics))) || !all(usable) || length(metrics) > 100L)) {
    haina_stop("train() returned metrics that are not named numbers", "metrics = list(loss = 0.4), at most 100")
  }
  steps <- if (is.null(answer$steps)) 1 else answer$steps
  missing <- setdiff(intersect(unlist(task$measure), c("loss_before", "loss_after", "accuracy")), names(metrics))
  if (length(missing) && !is_hidden(site)) {
    haina_stop(paste("the round asks for", paste(missing, collapse = ", "), "and train() did not return it"),
               "metrics = list(loss_before = ...)")
  }
  known <- metrics[intersect(names(metrics), REPORTED)]
  extra <- metrics[setdiff(names(metrics), REPORTED)]
  report <- c(list(examples = as.double(n), steps = as.double(steps)), known)
  if (length(extra)) report$extra <- extra
  report
}

# An error of a trainer as the coordinator hears it.
reason_of <- function(error) cut_text(if (inherits(error, "haina_error")) error$what else conditionMessage(error))
