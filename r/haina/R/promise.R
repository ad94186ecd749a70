# The promise: what the federation said when this site first took part, kept in its folder and held against every later word
# (`haina.node.promise`). The file comes from the coordinator, and a coordinator that has changed its mind could ask for updates in the clear where it
# had promised sums. A change needs a person of this site.
#
#     FEDERATION/promised.toml      the federation file, as it was
#     FEDERATION/promised.json      what follows from it (`Federation.brief`)

# What secrecy, noise and their price follow from: sections, and the keys of them that do; NULL for all.
HELD <- list(privacy = NULL, model = NULL, train = NULL, strategy = NULL, serve = c("nodes", "quorum"))

hold_promise <- function(folder, welcome) {
  path <- file.path(folder, "promised.json")
  now <- welcome$brief
  before <- NULL
  if (file.exists(path)) {
    before <- tryCatch(jsonlite::fromJSON(rawToChar(read_whole(path, 2e6)), simplifyVector = FALSE, bigint_as_char = TRUE),
                       error = function(error) NULL)
    if (is.null(before$file)) {
      trust_stop(paste(path, "does not hold what this site takes part under"),
                 remedy = paste0("Read what is promised now; if that is right, delete ", path, ", and join again"))
    }
  }
  changed <- if (!is.null(before)) promise_changes(before, now)
  if (!is.null(before) && !is.null(before$file$privacy) && length(changed)) {
    trust_stop(
      sprintf("federation %s promised something else when this site first took part: %s", welcome$federation,
              paste(changed, collapse = ", ")),
      paste("the file as it was, which is kept beside", path),
      paste0("Ask the operator why. If people here agree to the change, delete ", path, ", and join again")
    )
  }
  if (is.null(before) || length(changed)) {
    write_whole(file.path(folder, "promised.toml"), welcome$text)
    write_whole(path, welcome$brief_text)
  }
  invisible()
}

promise_changes <- function(before, now) {
  differs <- function(a, b) !identical(to_json(a), to_json(b))
  out <- character()
  if (differs(before$file$seed, now$file$seed)) out <- c(out, "seed")
  for (section in names(HELD)) {
    old <- before$file[[section]]
    new <- now$file[[section]]
    if (is.null(old) != is.null(new)) {
      out <- c(out, sprintf("[%s] is %s", section, if (is.null(new)) "gone" else "new"))
      next
    }
    keys <- if (is.null(HELD[[section]])) union(names(old), names(new)) else HELD[[section]]
    for (key in keys) {
      if (differs(old[[key]], new[[key]])) {
        out <- c(out, sprintf("[%s] %s was %s, and is %s", section, key, cut_text(to_json(old[[key]]), 80L),
                              cut_text(to_json(new[[key]]), 80L)))
      }
    }
  }
  # What a site does follows from these as well, and only the coordinator made them from the file.
  for (key in setdiff(union(names(before), names(now)), c("file", "task", "codecs"))) {
    if (differs(before[[key]], now[[key]])) {
      out <- c(out, sprintf("%s was %s, and is %s", key, cut_text(to_json(before[[key]]), 80L), cut_text(to_json(now[[key]]), 80L)))
    }
  }
  # What every task says follows from the file, and from parts of it that only the coordinator reads.
  for (key in union(names(before$task), names(now$task))) {
    if (differs(before$task[[key]], now$task[[key]])) out <- c(out, sprintf("a task's %s", key))
  }
  out
}

# What becomes of vectors, by learner; those that are not here average.
PAYLOADS <- c(glm = "sum", cox = "sum", summary = "sum", forest = "collect")

# A brief that the file bears out: the payload is the learner's, and small cells are guarded as the file says, or as by default where it says nothing.
# A coordinator may be wrong about its own file; what protects rows must not be its word.
borne_out <- function(brief) {
  model <- brief$file$model
  payload <- if (model$learner %in% names(PAYLOADS)) PAYLOADS[[model$learner]] else "average"
  if (!identical(brief$payload, payload)) {
    trust_stop(sprintf("the coordinator says that vectors are for \"%s\"", brief$payload),
               sprintf("\"%s\", as of the file's learner \"%s\"", payload, model$learner), "Ask the operator what runs there")
  }
  if (!identical(payload, "sum")) return(brief)
  check <- if (is.null(model$check)) "site" else model$check
  least <- if (is.null(model$min_cell)) MIN_CELL else model$min_cell
  if (!check %in% c("site", "sum") || !is.numeric(least) || !isTRUE(least >= 1)) {
    trust_stop("the file's check or min_cell is none", "\"site\" or \"sum\", and a whole number >= 1")
  }
  if (check == "sum" && is.null(policy_of(brief)$hidden)) {
    privacy_stop("check is \"sum\", and the coordinator would see the small cells of this site", "check = \"site\"",
                 "Or hide single sites: secure_aggregation = true under [privacy]")
  }
  if (!identical(brief$learner$kind, model$learner)) {
    trust_stop("the coordinator describes another learner than the file's", model$learner)
  }
  brief$learner$min_cell <- if (model$learner != "summary" && check == "sum") 1 else least
  brief$learner$check <- check
  brief
}

# What of a task is not as the file says, in words; NULL where all is. A site that was promised something trains as the file says, whatever the
# coordinator asks. The learning rate is not looked at, for it may follow what all clients achieved.
task_departure <- function(task, brief) {
  for (name in names(brief$task)) {
    if (!identical(to_json(task[[name]]), to_json(brief$task[[name]]))) {
      return(sprintf("%s is %s, and the federation file says %s", name, cut_text(to_json(task[[name]]), 80L),
                     cut_text(to_json(brief$task[[name]]), 80L)))
    }
  }
  NULL
}
