# Numbers and names as a reader wants them, in the same words as the Python side (`haina.monitoring.text`): few digits, units, and nothing that could
# disturb a page. Client names and reasons of failures are written by others, so every one of them goes through `plain` before it is shown.

# Shown where a number is missing.
NONE <- "\u2013"

# One line of printable characters, at most `limit` long; control characters become the replacement character.
plain <- function(text, limit = 160L) {
  text <- if (is.null(text)) "" else enc2utf8(as.character(text)[1])
  text <- iconv(text, "UTF-8", "UTF-8", sub = "\ufffd")
  # Controls, and the signs that turn the direction of writing (Unicode's Cc, Cf, Zl, Zp).
  text <- gsub("[\\p{Cc}\\p{Cf}\\p{Zl}\\p{Zp}]", "\ufffd", text, perl = TRUE)
  if (nchar(text) > limit) paste0(substr(text, 1L, limit - 1L), "\u2026") else text
}

# A finite number of a record by its name, or NA; records hold null for what was not finite.
known <- function(values, name) {
  value <- values[[name]]
  if (is.numeric(value) && length(value) == 1L && is.finite(value)) as.numeric(value) else NA_real_
}

# Three significant digits, thousands separated: -0.83, 24.1, 12,345.
number <- function(value) {
  if (is.na(value)) return(NONE)
  if (abs(value) >= 1000 && abs(value) < 1e7) return(
    formatC(value, format = "f", digits = 0L, big.mark = ",")
  )
  sprintf("%.3g", value)
}

# Two decimals, for scores of a fixed scale such as trust: 0.31, -0.83.
score <- function(value) if (is.na(value)) NONE else sprintf("%.2f", value + 0)

# A part of 1 with one decimal: 3.1%; nought is 0%, and what rounds to nought but is not is <0.1%.
percent <- function(part) {
  if (is.na(part)) return(NONE)
  if (part == 0) return("0%")
  if (part > 0 && part < 0.0005) "<0.1%" else sprintf("%.1f%%", 100 * part)
}

# 0.12 s, 3.4 s, 3 min 20 s, 2 h 5 min.
duration <- function(seconds) {
  if (is.na(seconds)) return(NONE)
  if (seconds < 59.95) return(sprintf(if (seconds < 1) "%.2f s" else "%.1f s", seconds))
  whole <- round(seconds)
  minutes <- whole %/% 60
  if (minutes < 60) return(sprintf("%d min %d s", minutes, whole %% 60))
  sprintf("%d h %d min", minutes %/% 60, minutes %% 60)
}

# How long ago, coarse enough to stand still between two looks: just now, 3 min ago, 2 h ago, 5 days ago.
ago <- function(seconds) {
  if (is.na(seconds)) return("never")
  if (seconds < 60) return("just now")
  if (seconds < 3600) return(sprintf("%d min ago", as.integer(seconds %/% 60)))
  if (seconds < 48 * 3600) return(sprintf("%d h ago", as.integer(seconds %/% 3600)))
  sprintf("%d days ago", as.integer(seconds %/% 86400))
}

# Seconds since 1970 as the reader's own clock shows them.
clock <- function(when, format = "%Y-%m-%d %H:%M:%S") {
  if (is.na(when)) NONE else format(as.POSIXct(when, origin = "1970-01-01"), format)
}

# 1 client, 2 clients.
plural <- function(count, noun) if (count == 1) paste(count, noun) else paste0(count, " ", noun, "s")
