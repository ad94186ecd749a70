# What one secure sum is about, in numbers that all its members agree on, and the digests that tie every key and signature to them.
#
# Terms are known before the group is: a member signs its keys over them. A setting adds what follows from who came: which group, and how its members
# share their secrets. The digests are SHA-256 over every field at a fixed place or with its length (`haina.privacy.secagg.setting` in Python).

# Begins every label, so that no key and no signature of this protocol means anything in another one, or in another version of it.
secagg_domain <- "haina/secagg/1/"

# Words of the longest vector, and members of the largest group.
secagg_longest <- 2^32
secagg_largest <- 2^16

#' What a member knows when it makes its keys.
#'
#' @param federation its name, 1 to 255 bytes of UTF-8.
#' @param round a whole number >= 0.
#' @param task SHA-256 of what every member is told to do, 64 hexadecimal digits (`task_digest`).
#' @param length words of a vector, >= 1.
#' @param word bits of a word, 32 or 64.
#' @param corrupt share of a group, in [0, 0.5), that may work together with the coordinator.
#' @noRd
secagg_terms <- function(federation, round, task, length, word = 32, corrupt = 0.1) {
  name_bytes(federation)
  check_whole("round", round, 0, 2^53)
  check_whole("length", length, 1, secagg_longest)
  if (!is_sha256(task)) {
    secagg_refuse("malformed", paste("the task is", shown(task)), "a SHA-256 in 64 hexadecimal digits")
  }
  if (!word %in% c(32, 64)) secagg_refuse("malformed", paste("a word has", word, "bits"), "32 or 64")
  if (!isTRUE(corrupt >= 0 && corrupt < 0.5)) {
    secagg_refuse("malformed", paste("corrupt is", corrupt), "a share in [0, 0.5)")
  }
  list(federation = federation, round = round, task = task, length = length, word = word, corrupt = corrupt)
}

#' One group of one round, on terms that were advertised for.
#'
#' @param group its number within the round, >= 0.
#' @param degree k, neighbours of each member: an even number, or all the others.
#' @param threshold t, how many of a secret's k + 1 shares open it.
#' @param least the fewest members whose sum may be opened, and who must have agreed on it.
#' @noRd
secagg_setting <- function(terms, group, degree, threshold, least) {
  check_whole("group", group, 0, 2^31 - 1)
  check_whole("degree", degree, 1, secagg_largest)
  check_whole("threshold", threshold, 2, degree + 1)
  check_whole("least", least, threshold, secagg_largest)
  c(terms, list(group = group, degree = degree, threshold = threshold, least = least))
}

terms_fields <- c("federation", "round", "task", "length", "word", "corrupt")

# 32 bytes that stand for the terms, and for all of a setting.
terms_context <- function(terms) {
  digest(
    charToRaw(paste0(secagg_domain, "terms")), as.raw(0), name_bytes(terms$federation),
    big_bytes(terms$round, 8),
    hex_bytes(terms$task), big_bytes(terms$length, 8), big_bytes(terms$word, 1), double_bytes(terms$corrupt)
  )
}

setting_context <- function(setting) {
  numbers <- unlist(
    lapply(setting[c("group", "degree", "threshold", "least")], big_bytes, 4), use.names = FALSE
  )
  digest(charToRaw(paste0(secagg_domain, "setting")), as.raw(0), terms_context(setting), numbers)
}

# The fields of a task, and how each is written for its digest: d a double, w a whole number, t a text, l several texts.
task_fields <- c(
  batch_size = "w", bytes = "w", clip_norm = "d", clip_update = "d", control = "t", epochs = "w",
  example_clip = "d", example_noise = "d",
  federation = "t", learning_rate = "d", limit = "d", measure = "l", model = "t", momentum = "d", noise = "d",
  proximal = "d", round = "w",
  seed = "w", steps = "w", version = "w", weight_decay = "d"
)
task_defaults <- list(
  batch_size = 32, epochs = 1, example_noise = 0, measure = list(), momentum = 0, noise = 0, proximal = 0,
  seed = 0, weight_decay = 0
)

#' SHA-256 of what must be the same for all members of a secure sum: every field of a task but `codec` and `seconds`.
#'
#' One line a field, in the order of their names: the name, a space, and the value. A whole number is decimal, a number with a point 8 bytes (IEEE
#' 754, high byte first) in hexadecimal, a missing one a `-`, several texts one after the other with commas.
#' @noRd
task_digest <- function(task) {
  line <- function(name) {
    value <- if (is.null(task[[name]])) task_defaults[[name]] else task[[name]]
    said <- if (is.null(value) && task_fields[[name]] != "l") {
      "-"
    } else {
      switch(
        task_fields[[name]],
        d = bytes_hex(double_bytes(as.double(value))),
        # Beyond 2^53 a whole number comes as text, or would not be the same.
        w = if (is.character(value)) value else sprintf("%.0f", as.double(value)),
        t = as.character(value),
        l = paste(unlist(value), collapse = ",")
      )
    }
    paste0(name, " ", said, "\n")
  }
  lines <- vapply(names(task_fields), line, "")
  bytes_hex(digest(charToRaw(enc2utf8(paste(lines, collapse = "")))))
}

#' A name as it is hashed, signed and sent: its length in one byte, then UTF-8.
#' @noRd
name_bytes <- function(name) {
  data <- if (is.character(name) && length(name) == 1 && !is.na(name)) charToRaw(enc2utf8(name)) else raw(0)
  if (length(data) < 1 || length(data) > 255) {
    secagg_refuse("malformed", paste("a name is", shown(name)), "1 to 255 bytes of UTF-8")
  }
  c(as.raw(length(data)), data)
}

check_whole <- function(name, value, low, high) {
  if (!isTRUE(value >= low && value <= high && value == floor(value))) {
    secagg_refuse("malformed", paste(name, "is", shown(value)), sprintf("%.0f to %.0f", low, high))
  }
}

digest <- function(...) as.raw(openssl::sha256(c(...)))

double_bytes <- function(value) writeBin(as.double(value), raw(), 8, endian = "big")

bytes_hex <- function(bytes) paste(as.character(bytes), collapse = "")

hex_bytes <- function(hex) {
  if (!nzchar(hex)) return(raw(0))
  as.raw(strtoi(substring(hex, seq(1, nchar(hex), 2), seq(2, nchar(hex), 2)), 16L))
}

is_sha256 <- function(text) is.character(text) && length(text) == 1 && grepl("^[0-9a-f]{64}$", text)

# A stranger's value in a message: short, and on one line.
shown <- function(value) substr(paste(deparse(value), collapse = " "), 1, 80)
