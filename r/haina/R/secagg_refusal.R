# Refusals of a secure sum. Each says what was wrong, what is allowed and what to do, and has a code, so that the other end, a log and a test can tell
# them apart:
#
#   malformed    bytes or numbers that no correct program sends      signature  a signature does not fit
#   order        a step was asked for before the one it follows      unknown    a name that is not in the group
#   replayed     a step was asked for a second time                  missing    the member itself is left out
#   changed      not what was agreed on or signed before             too_few    too few take part, answered or agreed
#   weak         the parameters protect less than was promised       apart      so many are missing side by side that the sum could fall in parts
#   substituted  another identity key than the one that is known

secagg_refuse <- function(code, what, allowed = "", remedy = "") {
  haina_stop(what, allowed, remedy, class = c("haina_secagg_error", "haina_privacy_error"), code = code)
}

# The owner's settings, or the federation's, cannot be kept here.
config_stop <- function(what, ...) haina_stop(what, ..., class = "haina_config_error")

# A refusal as the operator reads it: its code first, and what was wrong; not what it was held against.
refusal_words <- function(error) {
  code <- if (length(error$code) && nzchar(error$code)) paste0(error$code, ": ") else ""
  cut_text(paste0(code, if (is.null(error$what)) conditionMessage(error) else error$what))
}
