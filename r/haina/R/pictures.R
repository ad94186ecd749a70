# The pictures of a run in ggplot2, in the words and colours of the Python side (`haina.monitoring.plots`): light, quiet and safe for colour-blind eyes
# (Okabe and Ito 2008); no two things are told apart by colour alone. A title says the finding, a subtitle how to read it.

# The word by which an aesthetic names a column.
utils::globalVariables(".data")

BLUE <- "#0072B2"
RED <- "#D55E00"
SKY <- "#56B4E9"
INK <- "#222222"
GREY <- "#666666"
PALE <- "#E6E6E6"

MEASURED <- "accuracy on test rows"

# A heat map has at most so many columns and rows; longer runs are averaged over neighbouring rounds, other clients into one row.
COLUMNS <- 120L
ROWS <- 20L

# The theme of every picture.
look <- function() {
  ggplot2::theme_minimal(base_size = 12) + ggplot2::theme(
    text = ggplot2::element_text(colour = INK),
    plot.title = ggplot2::element_text(size = 15, face = "bold", margin = ggplot2::margin(b = 4)),
    plot.subtitle = ggplot2::element_text(size = 11, colour = GREY, margin = ggplot2::margin(b = 10)),
    plot.title.position = "plot",
    plot.background = ggplot2::element_rect(fill = "white", colour = NA),
    panel.grid.minor = ggplot2::element_blank(),
    panel.grid.major = ggplot2::element_line(colour = PALE, linewidth = 0.5),
    axis.text = ggplot2::element_text(size = 10, colour = GREY),
    axis.title = ggplot2::element_text(size = 11),
    plot.margin = ggplot2::margin(8, 12, 8, 8)
  )
}

titled <- function(title, subtitle, x, y) {
  fill <- function(text, width) paste(strwrap(text, width), collapse = "\n")
  ggplot2::labs(title = fill(title, 76), subtitle = fill(subtitle, 120), x = x, y = y)
}

# An axis of whole rounds, with room on the right for names.
rounds_axis <- function(rounds, room = 0) {
  breaks <- unique(round(pretty(range(rounds), 8)))
  breaks <- sort(unique(c(min(rounds), breaks[breaks > min(rounds) & breaks <= max(rounds)])))
  if (length(breaks) > 2L && breaks[2] - breaks[1] < 0.7 * (breaks[3] - breaks[2])) breaks <- breaks[-2]
  ggplot2::scale_x_continuous(breaks = breaks, expand = c(0.02, 0.5, 0.02 + room, 0.5))
}

percents <- function(values) {
  spread <- diff(range(values, na.rm = TRUE))
  ifelse(is.na(values), "", sprintf(if (spread >= 0.3) "%.0f%%" else "%.1f%%", 100 * values))
}

# Accuracy over rounds: a blue line and a red dashed threshold; NULL where nothing was evaluated.
#
# points: (round, value); threshold in [0, 1]; window: evaluations in the rolling mean, with more than one of which each evaluation is a dot.
draw_accuracy <- function(points, threshold = 0.9, window = 1, x = "round") {
  if (!nrow(points)) return(NULL)
  ended <- sprintf("it ended at %s", percent(points$value[nrow(points)]))
  title <- paste(sub("^It ", "Accuracy ", sub("\\.$", "", crossing(points, threshold))), ended, sep = "; ")
  low <- min(points$value, threshold)
  draw_course(points, window) +
    ggplot2::geom_hline(yintercept = threshold, colour = RED, linetype = "dashed", linewidth = 0.9) +
    ggplot2::scale_y_continuous(limits = c(max(0, floor(low * 10 - 1e-9) / 10), 1), labels = percents) +
    titled(title, sprintf("%s; dashed red: %.0f%%", reading(window), 100 * threshold), x, MEASURED)
}

# Loss over rounds; NULL where nothing was evaluated.
draw_loss <- function(points, window = 1, x = "round") {
  if (!nrow(points)) return(NULL)
  ends <- points$value[c(1L, nrow(points))]
  way <- if (ends[2] < ends[1]) "fell" else "rose"
  title <- sprintf("Loss %s from %s to %s", way, number(ends[1]), number(ends[2]))
  if (ends[1] == ends[2]) title <- sprintf("Loss is %s", number(ends[2]))
  draw_course(points, window) + titled(title, reading(window), x, "loss on test rows")
}

draw_course <- function(points, window) {
  points$mean <- rolling(points$value, window)
  picture <- ggplot2::ggplot(points, ggplot2::aes(.data$round)) + look() + rounds_axis(points$round)
  if (window > 1) {
    picture <- picture + ggplot2::geom_point(ggplot2::aes(y = .data$value), colour = SKY, size = 1.8)
  } else if (nrow(points) <= 60L) {
    picture <- picture + ggplot2::geom_point(ggplot2::aes(y = .data$mean), colour = BLUE, size = 2.2)
  }
  if (nrow(points) > 1L) {
    picture <- picture + ggplot2::geom_line(ggplot2::aes(y = .data$mean), colour = BLUE, linewidth = 1.1)
  }
  picture
}

reading <- function(window) {
  if (window <= 1) return("The shared model after each evaluated round")
  sprintf(
    "Line: mean of the last %d evaluations; dots: each evaluation of the shared model", as.integer(window)
  )
}

# Who counted how much in which round: a heat map with a row a client; NULL where no client has a share.
draw_shares <- function(course) {
  if (is.null(course)) return(NULL)
  course <- course[!course$kept & !is.na(course$share) & !course$verdict %in% LEFT_OUT, , drop = FALSE]
  if (!nrow(course)) return(NULL)
  course$locked <- course$verdict == "quarantined"
  locked <- unique(course$client[course$locked])
  title <- sprintf("The largest share of a round was %s", percent(max(course$share)))
  if (length(locked)) {
    title <- sprintf("%s; %s in quarantine got nothing", title, plural(length(locked), "client"))
  }
  tiles <- tiles_of(course, locked)
  crossed <- tiles[tiles$locked > 0.5, , drop = FALSE]
  picture <- ggplot2::ggplot(tiles, ggplot2::aes(.data$column, .data$row)) +
    ggplot2::geom_tile(ggplot2::aes(fill = .data$share), width = 0.94 * attr(tiles, "step"), height = 0.9) +
    ggplot2::scale_fill_gradientn(
      colours = c("#FFFFFF", "#9CCBEA", BLUE, "#00233D"), limits = c(0, max(tiles$share, 1e-9)),
      labels = percents, name = "share"
    ) +
    rounds_axis(course$round) + look() +
    ggplot2::theme(
      panel.grid = ggplot2::element_blank(),
      panel.background = ggplot2::element_rect(fill = "#EDEDED", colour = NA)
    ) +
    titled(title, paste0(
      "Share of each client in the new model: the darker the larger, white is nought, grey took no part",
      if (nrow(crossed)) "; \u00d7 is in quarantine"
    ), "round", "client")
  if (nrow(crossed)) {
    picture <- picture + ggplot2::geom_point(data = crossed, colour = RED, shape = 4, size = 1.6, stroke = 0.6)
  }
  picture
}

# Rows and columns of the heat map: mean share, and the part of rounds in quarantine. The largest shares are on top.
tiles_of <- function(course, locked) {
  means <- tapply(course$share, course$client, mean)
  ordered <- names(means)[order(-means, names(means), method = "radix")]
  shown <- ordered
  if (length(ordered) > ROWS) {
    worst <- utils::head(rev(ordered[ordered %in% locked]), (ROWS - 1L) %/% 2L)
    best <- utils::head(setdiff(ordered, worst), ROWS - 1L - length(worst))
    shown <- ordered[ordered %in% c(worst, best)]
  }
  rest <- sprintf("%s, mean", plural(length(ordered) - length(shown), "other"))
  course$row <- ifelse(course$client %in% shown, substr(course$client, 1L, 18L), rest)
  step <- -(-(max(course$round) - min(course$round) + 1) %/% COLUMNS)
  course$column <- (course$round - 1) %/% step * step + 1 + (step - 1) / 2
  tiles <- stats::aggregate(cbind(share, locked) ~ row + column, course, mean)
  tiles$row <- factor(tiles$row, rev(unique(c(substr(shown, 1L, 18L), rest))))
  structure(tiles, step = step)
}

# Trust over rounds: a line a client; those ever in quarantine stand out. NULL where the run scored no trust.
draw_trust <- function(course) {
  if (is.null(course) || all(is.na(course$trust))) return(NULL)
  stays <- quarantines(course)
  steady <- "never in quarantine"
  marked <- "in quarantine at some time"
  frame <- course[!is.na(course$trust), , drop = FALSE]
  frame$kind <- ifelse(frame$client %in% stays$client, marked, steady)
  turns <- rbind(
    data.frame(client = stays$client, round = stays$start, turn = rep("begins", nrow(stays))),
    data.frame(client = stays$client, round = stays$released, turn = rep("ends", nrow(stays)))
  )
  turns <- merge(frame, turns, by = c("client", "round"))
  clients <- length(unique(frame$client))
  lost <- length(unique(stays$client))
  title <- sprintf(
    "%s of %s lost trust and came into quarantine", if (lost) lost else "None", plural(clients, "client")
  )
  signs <- c(if (nrow(turns)) "; \u00d7 quarantine begins", if ("ends" %in% turns$turn) ", \u25cb it ends")
  named <- line_ends(frame[frame$kind == marked, , drop = FALSE])
  picture <- ggplot2::ggplot(
    frame,
    ggplot2::aes(.data$round, .data$trust, colour = .data$kind, linetype = .data$kind, group = .data$client)
  ) +
    ggplot2::geom_line(linewidth = 0.7, alpha = 0.7) +
    ggplot2::geom_point(
      data = turns, ggplot2::aes(shape = .data$turn), colour = INK, size = 2.6, stroke = 0.9,
      show.legend = FALSE
    ) +
    ggplot2::scale_colour_manual(values = stats::setNames(c(SKY, RED), c(steady, marked)), name = NULL) +
    ggplot2::scale_linetype_manual(
      values = stats::setNames(c("solid", "dashed"), c(steady, marked)), name = NULL
    ) +
    ggplot2::scale_shape_manual(values = c(begins = 4, ends = 1)) +
    ggplot2::scale_y_continuous(limits = c(0, 1), breaks = c(0, 0.25, 0.5, 0.75, 1)) +
    rounds_axis(frame$round, room = if (is.null(named)) 0 else 0.13) + look() +
    ggplot2::theme(legend.position = "top", legend.justification = "left") +
    titled(
      title, paste0("Trust of each client, earned over rounds", paste(signs, collapse = "")), "round",
      "trust (0 to 1)"
    )
  if (is.null(named)) return(picture)
  picture + ggplot2::geom_text(
    data = named, ggplot2::aes(.data$round, .data$trust, label = .data$client), colour = INK, hjust = 0,
    size = 3.2, inherit.aes = FALSE
  )
}

# Names at the ends of lines, moved apart; NULL where they are too many to read, or none.
line_ends <- function(frame, most = 10L, gap = 0.045) {
  ends <- frame[order(frame$round), , drop = FALSE]
  ends <- ends[!duplicated(ends$client, fromLast = TRUE), , drop = FALSE]
  if (nrow(ends) == 0L || nrow(ends) > most) return(NULL)
  ends <- ends[order(ends$trust, ends$client, method = "radix"), , drop = FALSE]
  heights <- Reduce(function(below, value) max(value, below + gap), ends$trust, accumulate = TRUE)
  last <- max(frame$round)
  data.frame(
    round = last + 0.012 * max(1, last - min(frame$round)),
    trust = heights - max(0, heights[length(heights)] - 1),
    client = substr(ends$client, 1L, 18L)
  )
}
