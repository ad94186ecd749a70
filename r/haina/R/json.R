# JSON as it is sent and signed: compact, keys sorted, ASCII, every number the shortest text that reads back as the same double.
#
# It is Python's `json.dumps(sort_keys=True, separators=(",", ":"))` byte for byte, because a manifest's signature covers these bytes
# (`haina.wire.identity.signed_bytes`). `jsonlite::toJSON` keeps 15 digits, so it writes other numbers than were meant.

# An R value as JSON text: a named list is an object, an unnamed list an array, a character, number or logical of length 1 itself, longer vectors
# arrays; NULL and numbers that are not finite are null.
to_json <- function(x) {
  if (is.null(x)) return("null")
  if (is.list(x) || length(x) != 1L) {
    if (!is.null(names(x)) || inherits(x, "json_object")) return(json_object(x))
    return(paste0("[", paste(vapply(x, to_json, ""), collapse = ","), "]"))
  }
  if (is.character(x)) return(json_string(x))
  if (is.logical(x)) return(if (is.na(x)) "null" else if (x) "true" else "false")
  json_number(as.double(x))
}

# An object without fields; `list()` is an empty array.
empty_object <- function() structure(list(), class = "json_object")

json_object <- function(x) {
  if (!length(x)) return("{}")
  # Radix sorting is by bytes, which for UTF-8 is the order of code points, as in Python.
  order <- order(enc2utf8(names(x)), method = "radix")
  fields <- vapply(order, function(i) paste0(json_string(names(x)[[i]]), ":", to_json(x[[i]])), "")
  paste0("{", paste(fields, collapse = ","), "}")
}

json_string <- function(x) {
  codes <- utf8ToInt(enc2utf8(x))
  if (length(codes) == 1L && is.na(codes)) {
    haina_stop("a text is missing, or not valid in its encoding", remedy = "Write it as UTF-8")
  }
  plain <- codes >= 32L & codes < 127L & codes != 34L & codes != 92L
  if (all(plain)) return(paste0("\"", enc2utf8(x), "\""))
  paste0("\"", paste(vapply(codes, json_escape, ""), collapse = ""), "\"")
}

json_escape <- function(code) {
  known <- c("8" = "\\b", "9" = "\\t", "10" = "\\n", "12" = "\\f", "13" = "\\r", "34" = "\\\"", "92" = "\\\\")
  short <- known[as.character(code)]
  if (!is.na(short)) return(unname(short))
  if (code >= 32L && code < 127L) return(intToUtf8(code))
  if (code < 65536L) return(sprintf("\\u%04x", code))
  above <- code - 65536L
  sprintf("\\u%04x\\u%04x", 55296L + above %/% 1024L, 56320L + above %% 1024L)
}

# A number as Python writes it. A whole one below 2^53 is written as an integer, because 3.0 may become 3 on its way through another language.
json_number <- function(x) {
  if (!is.finite(x)) return("null")
  if (x == trunc(x) && abs(x) < 2^53) return(sprintf("%.0f", if (x == 0) 0 else x))
  shortest(x)
}

# The shortest decimal text that reads back as the double, and of those the closest (Steele and White 1990; Gay 1990), in Python's form: an exponent
# below 1e-4 and from 1e16 on. Texts are read by `jsonlite`, whose reader rounds correctly; R's own may be off by the last bit.
shortest <- function(x) {
  closest <- sprintf("%.*e", 0:16, abs(x))
  found <- match(TRUE, reads_as(closest, abs(x)))
  # Just above a power of two, the neighbour of the closest text may read back where the closest does not, with fewer digits.
  if (found > 1L) {
    above <- next_text(closest[[found - 1L]])
    if (reads_as(above, abs(x))) return(python_form(above, x < 0))
  }
  python_form(closest[[found]], x < 0)
}

reads_as <- function(texts, x) {
  # Near the largest double, a text of few digits is beyond all doubles, and an error.
  tryCatch(jsonlite::fromJSON(paste0("[", paste(texts, collapse = ","), "]")) == x,
           error = function(error) if (length(texts) == 1L) FALSE else vapply(texts, reads_as, NA, x = x, USE.NAMES = FALSE))
}

# The text with one more in its last digit.
next_text <- function(text) {
  parts <- regmatches(text, regexec("^([0-9])\\.?([0-9]*)e([-+][0-9]+)$", text))[[1L]]
  digits <- as.integer(strsplit(paste0(parts[[2L]], parts[[3L]]), "")[[1L]])
  exponent <- as.integer(parts[[4L]])
  place <- length(digits)
  while (place > 0L && digits[[place]] == 9L) {
    digits[[place]] <- 0L
    place <- place - 1L
  }
  if (place > 0L) {
    digits[[place]] <- digits[[place]] + 1L
  } else {
    digits <- c(1L, digits[-length(digits)])
    exponent <- exponent + 1L
  }
  rest <- paste(digits[-1L], collapse = "")
  sprintf("%d%s%se%+d", digits[[1L]], if (nzchar(rest)) "." else "", rest, exponent)
}

python_form <- function(text, negative) {
  parts <- regmatches(text, regexec("^([0-9])\\.?([0-9]*)e([-+][0-9]+)$", text))[[1L]]
  digits <- sub("0+$", "", paste0(parts[[2L]], parts[[3L]]))
  point <- as.integer(parts[[4L]]) + 1L
  many <- nchar(digits)
  if (point > 16L || point < -3L) {
    rest <- substring(digits, 2L)
    out <- sprintf("%s%s%se%s%02d", substr(digits, 1L, 1L), if (nzchar(rest)) "." else "", rest,
                   if (point > 0L) "+" else "-", abs(point - 1L))
  } else if (point <= 0L) {
    out <- paste0("0.", strrep("0", -point), digits)
  } else if (point >= many) {
    out <- paste0(digits, strrep("0", point - many), ".0")
  } else {
    out <- paste0(substr(digits, 1L, point), ".", substring(digits, point + 1L))
  }
  paste0(if (negative) "-" else "", out)
}

# JSON from the network: lists stay lists, and integers beyond 2^53 stay text, so that nothing is rounded.
from_json <- function(text, what) {
  tryCatch(
    jsonlite::fromJSON(text, simplifyVector = FALSE, bigint_as_char = TRUE),
    error = function(error) unreachable(paste(what, "is not JSON"))
  )
}
