# One site's answer to each kind of question, number for number what Python sites answer (`answer` in haina.learners.summary). Arguments: `rows` of
# `summary_rows`, what is `known` (its first number is the stage; bounds come with the first, bins and curves with the second), and what the `learner` says of itself.

describe_answer <- function(rows, known, learner) {
  values <- described(rows$values)
  width <- ncol(values)
  # Two ranks for each column and probability, and a ladder of rungs between the bounds of each.
  ranks <- 2 * length(learner$probabilities)
  centre <- known[2 + width + seq_len(width)]
  bounds <- matrix(known[-seq_len(2 + 3 * width)], ncol = 2L)
  below <- numeric(ranks * width * learner$rungs)
  if (known[[1L]] >= 1 && ranks > 0) {
    rungs <- ladder(bounds[, 1L], bounds[, 2L], learner$rungs)
    below <- lapply(seq_len(width), function(j) {
      own <- rungs[(j - 1) * ranks + seq_len(ranks), , drop = FALSE]
      findInterval(t(own), sort(values[is.finite(values[, j]), j]))
    })
  }
  c(rows$n, moments(values, centre), unlist(below))
}

table_answer <- function(rows, known, learner) {
  sizes <- vapply(learner$columns, function(name) length(learner$levels[[name]]), 0)
  # The last column's level runs fastest.
  cell <- Reduce(function(place, k) place * sizes[[k]] + rows$codes[[k]], seq_along(sizes), 0)
  cells <- tabulate(cell[!is.na(cell)] + 1, prod(sizes))
  refuse_small(cells, learner)
  c(rows$n, cells)
}

histogram_answer <- function(rows, known, learner) {
  values <- described(rows$values)
  cells <- numeric(learner$edges + 1)
  if (known[[1L]] >= 2) {
    edges <- known[3 + seq_len(learner$edges)]
    there <- values[is.finite(values)]
    # Bins are closed on the right, the first on both sides.
    place <- ifelse(there == edges[[1L]], 1, findInterval(there, edges, left.open = TRUE))
    cells <- tabulate(place + 1, learner$edges + 1)
    refuse_small(cells, learner)
  }
  c(rows$n, moments(values, known[[3L]]), cells)
}

correlation_answer <- function(rows, known, learner) {
  width <- ncol(rows$values)
  values <- rows$values[rowSums(!is.finite(rows$values)) == 0, , drop = FALSE]
  least <- max(FEWEST_ROWS, width + 1)
  if (nrow(values) > 0 && nrow(values) < least) {
    withheld(
      sprintf("fewer than %.0f of its rows are complete, which their products would give away", least),
      sprintf("no complete rows, or at least %.0f", least), "Name fewer columns"
    )
  }
  away <- sweep(values, 2L, known[2 + seq_len(width)])
  # The lower triangle by columns is the upper one by rows.
  c(nrow(values), unname(colSums(away)), crossprod(away)[lower.tri(diag(width), diag = TRUE)])
}

auc_answer <- function(rows, known, learner) {
  values <- described(rows$values)
  there <- is.finite(values[, 1L]) & is.finite(rows$case)
  score <- values[there, 1L]
  case <- rows$case[there]
  all_usable(case %in% c(0, 1), "outcomes 0 and 1")
  cells <- numeric(2 * learner$bins)
  if (known[[1L]] >= 2) {
    # Scores are drawn together by an S-shaped curve around their common mean, into equal bins of (0, 1): cases first.
    spread <- if (known[[4L]] == 0) 1 else known[[4L]]
    drawn <- 1 / (1 + exp(-pmin(pmax(1.7 * (score - known[[3L]]) / spread, -700), 700)))
    place <- pmin(floor(drawn * learner$bins), learner$bins - 1) + 1
    cells <- unlist(lapply(c(1, 0), function(half) tabulate(place[case == half], learner$bins)))
    refuse_small(cells, learner)
  }
  c(length(score), moments(matrix(score), known[[3L]]), cells)
}

# Answers by the name of the question.
SUMMARIES <- list(
  describe = describe_answer, table = table_answer, histogram = histogram_answer,
  correlation = correlation_answer, auc = auc_answer
)

# The values, where each column has none, or enough of them to be described.
described <- function(values) {
  counts <- colSums(is.finite(values))
  few <- which(counts > 0 & counts < FEWEST_ROWS)
  if (length(few)) {
    name <- colnames(values)[[few[[1L]]]]
    withheld(
      sprintf("column '%s' has fewer than %d values here, which a summary would give away", name, FEWEST_ROWS),
      sprintf("no values, or at least %d", FEWEST_ROWS), "Leave the column out"
    )
  }
  values
}

# Counts, sums of deviations from a centre near the mean, and sums of their squares, of each column: the first half of Chan, Golub and LeVeque's
# corrected two-pass algorithm (1983, eq. 1.7).
moments <- function(values, centre) {
  there <- is.finite(values)
  away <- sweep(values, 2L, centre)
  away[!there] <- 0
  unname(c(colSums(there), colSums(away), colSums(away^2)))
}
