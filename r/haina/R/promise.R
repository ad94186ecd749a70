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
  # What every task says follows from the file, and from parts of it that only the coordinator reads.
  for (key in union(names(before$task), names(now$task))) {
    if (differs(before$task[[key]], now$task[[key]])) out <- c(out, sprintf("a task's %s", key))
  }
  out
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
