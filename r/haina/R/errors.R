# Errors: what was wrong (with the value), what is allowed, what to do next. The three parts are fields of the condition, so that a programme can
# read them one by one. `refusal` and `unreachable` are the two ways in which a call can fail: the coordinator said no, or nothing is known.

haina_stop <- function(what, allowed = "", remedy = "", class = NULL, ...) {
  parts <- c(what, if (nzchar(allowed)) paste0("Allowed: ", allowed), if (nzchar(remedy)) remedy)
  text <- paste(sub("\\.+$", "", parts), collapse = ". ")
  message <- if (endsWith(text, "?")) text else paste0(text, ".")
  fields <- list(message = message, call = NULL, what = what, allowed = allowed, remedy = remedy, ...)
  stop(structure(fields, class = c(class, "haina_error", "error", "condition")))
}

trust_stop <- function(what, ...) haina_stop(what, ..., class = "haina_trust_error")

# What was promised of privacy cannot be kept: nothing may leave. `code` is that of a secure sum's refusal, if it is one.
privacy_stop <- function(what, ..., code = "") haina_stop(what, ..., code = code, class = "haina_privacy_error")

unreachable <- function(what, ...) haina_stop(what, ..., class = "haina_unreachable")

refusal <- function(code, what, allowed = "", remedy = "", retry = 0) {
  haina_stop(what, allowed, remedy, class = "haina_refusal", code = code, retry = retry)
}

# Characters of a text, cut to what a message may hold.
cut_text <- function(text, most = 1000L) {
  text <- paste(text, collapse = " ")
  text <- iconv(enc2utf8(text), "UTF-8", "UTF-8", sub = "?")
  substr(text, 1L, most)
}
