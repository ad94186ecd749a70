# What the rounds of a run say about its model and its clients, read off their records as `haina.monitoring.history` does, so that words, tables and
# pictures cannot disagree. Rounds are RoundInfo lists (see sources.R), oldest first.

# Nothing usable came from these clients.
LEFT_OUT <- c("refused", "failed", "absent")

# The conspicuous first.
VERDICTS <- c(
  "quarantined", "refused", "failed", "damped", "probation", "clipped", "admitted", "passed over", "absent"
)

# What a reader should look at: these are drawn red.
ALARMING <- c("quarantined", "refused", "failed")

# (round, value) of each round in which a metric was evaluated.
measured <- function(rounds, metric) {
  values <- vapply(rounds, function(info) known(info$record$metrics, metric), 0)
  numbers <- vapply(rounds, function(info) as.numeric(info$number), 0)
  data.frame(round = numbers, value = values)[is.finite(values), , drop = FALSE]
}

# Mean of the last `window` values, of fewer at the beginning.
rolling <- function(values, window) {
  vapply(seq_along(values), function(i) mean(values[max(1L, i - window + 1L):i]), 0)
}

# When accuracy reached a threshold, and whether it stayed there.
crossing <- function(points, threshold) {
  line <- sprintf("%.0f%%", 100 * threshold)
  reached <- points$round[points$value >= threshold]
  if (!length(reached)) return(sprintf("It did not reach %s.", line))
  first <- reached[1]
  fell <- sum(points$round > first & points$value < threshold)
  if (fell == 0) return(sprintf("It reached %s in round %d and stayed there.", line, first))
  sprintf("It reached %s in round %d, and was below it in %s.", line, first, plural(fell, "later round"))
}

# One row a client of one round: what became of its update, and what made its share. The conspicuous first, then the largest shares.
clients_of <- function(record) {
  clients <- record$clients
  text <- function(name) vapply(clients, function(client) plain(client[[name]]), "")
  rows <- data.frame(
    client = text("client"), verdict = text("verdict"), share = field_numbers(clients, "share"),
    prior = field_numbers(clients, "prior"), factors = vapply(clients, factors_of, ""),
    trust = vapply(clients, function(client) known(client$evidence, "trust"), 0), reason = text("reason")
  )
  share <- ifelse(is.na(rows$share), 0, rows$share)
  rows[order(match(rows$verdict, VERDICTS), -share, rows$client, method = "radix"), , drop = FALSE]
}

field_numbers <- function(items, name) vapply(items, function(item) known(item, name), 0)

# The factors of a prior share in words: "samples 35, accuracy 1.2, gate 1"; trust's factor is its gate.
factors_of <- function(client) {
  names <- names(client$factors)
  called <- ifelse(names == "trust", "gate", vapply(names, plain, "", limit = 40L))
  paste(called, vapply(names, function(name) number(known(client$factors, name)), ""), collapse = ", ")
}

# Every client of every round as one long table: round, client, verdict, share, trust, reason, kept (whether the round kept the old model).
course_of_clients <- function(rounds) {
  tables <- lapply(rounds, function(info) {
    if (!length(info$record$clients)) return(NULL)
    rows <- clients_of(info$record)[c("client", "verdict", "share", "trust", "reason")]
    cbind(round = as.numeric(info$number), rows, kept = identical(info$record$outcome, "kept"))
  })
  do.call(rbind, tables)
}

# Every stay in quarantine: client, start, released (NA while it stays). A client that sends nothing for a while is not released by that.
quarantines <- function(course) {
  stays <- lapply(split(course, course$client), function(rows) {
    rows <- rows[!rows$verdict %in% LEFT_OUT, ]
    inside <- rows$verdict == "quarantined"
    starts <- rows$round[inside & !c(FALSE, utils::head(inside, -1L))]
    ends <- rows$round[!inside & c(FALSE, utils::head(inside, -1L))]
    data.frame(
      client = rep(rows$client[1], length(starts)), start = starts,
      released = c(ends, rep(NA, length(starts) - length(ends)))
    )
  })
  stays <- do.call(rbind, stays)
  stays[order(stays$start, stays$client, method = "radix"), , drop = FALSE]
}

# How many clients of a round have an alarming verdict, in words: "1 quarantined, 2 failed"; empty where none has. Of a round whose clients are not
# known, what its numbers tell.
trouble_of <- function(info) {
  clients <- info$record$clients
  if (length(clients)) {
    counts <- table(factor(vapply(clients, function(client) client$verdict, ""), c(ALARMING, "absent")))
  } else if (info$state %in% c("open", "closing")) {
    counts <- c(failed = info$failed)
  } else {
    counts <- c(failed = info$failed, absent = max(0, info$invited - info$arrived - info$failed))
  }
  counts <- counts[counts > 0]
  paste(counts, names(counts), collapse = ", ")
}
