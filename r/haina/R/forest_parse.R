# JSON from the network, before anybody believes it: its size and nesting, and the lists, names, indices and numbers of a forest.

forest_parsed <- function(document) {
  text <- tryCatch(rawToChar(document), error = function(e) "")
  Encoding(text) <- "UTF-8"
  broken <- function(...) forest_stop("the forest is not JSON", remedy = "The upload or file is damaged")
  if (!startsWith(text, "{") || !validUTF8(text)) broken()
  # Brackets within texts are not brackets.
  if (deepest(charToRaw(gsub("\"(?:[^\"\\\\]++|\\\\.)*+\"", "", text, perl = TRUE))) > MOST_NESTING) broken()
  tryCatch(jsonlite::parse_json(text), error = broken)
}

# How many brackets are open at once, at most; a piece at a time, because R's numbers take more room than bytes.
deepest <- function(bytes, piece = 2^20) {
  depth <- most <- 0
  for (start in seq(1, max(1, length(bytes)), piece)) {
    part <- bytes[seq.int(start, length.out = min(piece, length(bytes) - start + 1))]
    open <- depth + cumsum((part == 0x7b | part == 0x5b) - (part == 0x7d | part == 0x5d))
    most <- max(most, open)
    depth <- open[length(open)]
  }
  most
}

# The fields of an object; one that is said twice is read differently by different readers.
forest_object <- function(x, what) {
  if (!is.list(x) || is.null(names(x)) || anyDuplicated(names(x))) {
    forest_stop(sprintf("%s is no JSON object", what))
  }
  x
}

forest_list <- function(x, key, limit, exact = FALSE) {
  value <- x[[key, exact = TRUE]]
  if (!is.list(value) || !is.null(names(value)) || length(value) > limit ||
      (exact && length(value) != limit)) {
    forest_stop(sprintf("'%s' has %s", key,
                        if (is.list(value)) sprintf("%d entries", length(value)) else class(value)[[1L]]),
                sprintf("a list of %s%.0f", if (exact) "" else "at most ", limit))
  }
  value
}

forest_count <- function(x, key, limit) {
  value <- x[[key, exact = TRUE]]
  if (!is.numeric(value) || length(value) != 1L || value != trunc(value) || value < 0 || value > limit) {
    forest_stop(sprintf("'%s' is %s", key, cut_text(format(value), 80L)),
                sprintf("a whole number from 0 to %.0f", limit))
  }
  if (value < 2^31) as.integer(value) else value
}

forest_texts <- function(x) {
  text <- function(one) is.character(one) && length(one) == 1L
  if (!is.null(x) && (!is.list(x) || !all(vapply(x, text, NA)))) {
    forest_stop("a name of a column, a level or a class is no text", "text")
  }
  x
}

forest_indices <- function(x, low, high) {
  if (!length(x)) return(integer())
  kinds <- unique(vapply(x, typeof, ""))
  number <- if (all(kinds %in% c("integer", "double")) && all(lengths(x) == 1L)) as.double(unlist(x)) else NaN
  if (anyNA(number) || any(number != trunc(number) | number < low | number > high)) {
    forest_stop("an index is out of bounds, or no number",
                sprintf("a whole number from %.0f to %.0f", low, high))
  }
  as.integer(number)
}

HEXADECIMAL <- "^[-+]?0[xX][0-9a-fA-F]*\\.?[0-9a-fA-F]*([pP][-+]?[0-9]{1,5})?$"

# Numbers, or hexadecimal text: each kind on its own, because R turns numbers beside text into text of 15 digits.
forest_numbers <- function(x) {
  if (!length(x)) return(double())
  kind <- vapply(x, typeof, "")
  kind[lengths(x) != 1L] <- "list"
  text <- kind == "character"
  out <- double(length(x))
  if (!all(text | kind %in% c("integer", "double")) || !all(grepl(HEXADECIMAL, unlist(x[text])))) {
    forest_stop("a threshold or vote is not a number", "a number, or hexadecimal text")
  }
  if (any(text)) out[text] <- as.double(unlist(x[text]))
  if (!all(text)) out[!text] <- as.double(unlist(x[!text]))
  if (!all(is.finite(out))) forest_stop("a threshold or vote is not finite", "finite numbers")
  out
}
