# Sums of Cox's model, stratified by site, as the federation's learner "cox" adds them (haina.learners.cox): a site is a stratum with a baseline hazard
# of its own, so the log partial likelihood is a sum over sites, and Newton's method on the sums is `coxph(Surv(time, event) ~ x + strata(site))`.
#
# The trap is disclosure: with one event the gradient is that person's row. A site with fewer than max(10, p + 1) rows or max(5, p + 1) events is
# silent.

# Fewer events than this are described too closely by sums over events.
FEWEST_EVENTS <- 5L

#' A trainer for exact proportional hazards
#'
#' For federations with `learner = "cox"`: each round the site sends gradient and Hessian of its own log partial likelihood at the federation's
#' coefficients. The coordinator adds those of all sites and takes Newton's step, so that the result is
#' `survival::coxph(Surv(time, event) ~ x + strata(site))` of all rows together, to rounding. `strata(ward)` in the formula divides a site further.
#'
#' A site with fewer than `max(10, p + 1)` rows or `max(5, p + 1)` events sends nothing, where p is the number of coefficients.
#'
#' @param data a data frame with this site's rows.
#' @param formula which columns make the coefficients, such as `Surv(time, died) ~ age + sex`; by default the federation's. Names must come out as the
#'   federation's. `Surv` and `strata` are read by this package; survival need not be installed.
#' @return A function for [join()].
#' @export
#' @examples
#' trainer <- train_cox(data.frame(time = c(3, 5), died = c(1, 0), age = c(60, 50)), Surv(time, died) ~ age)
train_cox <- function(data, formula = NULL) {
  if (!is.data.frame(data)) haina_stop(paste("data is", class(data)[[1L]]), "a data frame")
  made <- NULL
  trainer <- function(params, config) {
    if (is.null(made)) made <<- cox_design(data, formula, config)
    cox_sums(made, as.double(params))
  }
  structure(trainer, examples = nrow(data))
}

# The columns of the regression and what became of each row, once: a list of `x`, `time`, `event`, `strata` (names) and `ties`.
cox_design <- function(data, formula, config) {
  if (!identical(config$learner$kind, "cox")) {
    haina_stop("the federation does not add sums of Cox's model", "learner = \"cox\" under [model]",
               "Give join() a trainer that fits the federation's model")
  }
  ties <- config$learner$ties
  if (!ties %in% c("efron", "breslow")) haina_stop(paste("ties is", ties), "efron or breslow")
  if (is.null(formula)) formula <- safe_survival(config$learner$formula)
  parts <- survival_parts(formula)
  data <- agreed_data(data, config)
  if (!parts$event %in% names(data)) {
    haina_stop(paste("the data lack the columns", parts$event), "the columns of the federation")
  }
  event <- agreed_outcome(data[[parts$event]], parts$event, config)
  wanted <- config$names
  config$names <- c("(Intercept)", parts$strata, wanted)
  # `.` on the right stands for neither part of the left side.
  made <- agreed_design(data[setdiff(names(data), parts$event)], parts$formula, config)
  enough_rows(nrow(made$x), max(FEWEST_ROWS, length(wanted) + 1))
  beside <- 1 + length(parts$strata)
  x <- made$x[, -seq_len(beside), drop = FALSE]
  all_usable(is.finite(x), "finite numbers")
  all_usable(is.finite(made$y) & made$y >= 0, "finite times >= 0")
  all_usable(event %in% c(0, 1), "events that are 0 (censored) or 1")
  refuse_rare(x, config$learner)
  strata <- do.call(paste, as.data.frame(made$x[, seq_len(beside), drop = FALSE]))
  list(x = x, time = made$y, event = event, strata = strata, ties = ties)
}

# `Surv(time, event) ~ terms` as `formula` of the time alone, the name of the `event`, and what the columns of `strata()` will be called.
#
# Factors are coded as beside a column of ones, which cancels; so it is asked for, and left out of the matrix. So is strata(), here a number.
survival_parts <- function(formula) {
  left <- if (length(formula) == 3L) formula[[2L]]
  right <- formula[[length(formula)]]
  survival <- is.call(left) && deparse(left[[1L]]) %in% c("Surv", "survival::Surv")
  if (!survival || length(left) != 3L || !is.name(left[[3L]])) {
    haina_stop("the formula has no Surv(time, event) on its left side",
               "a formula such as Surv(time, died) ~ age + sex")
  }
  world <- new.env(parent = environment(formula))
  world$strata <- stratum_numbers
  of_time <- stats::as.formula(call("~", left[[2L]], call("+", right, 1)), env = world)
  # The terms of `.` are not known here, and strata() is none of them.
  terms <- stats::terms(of_time, specials = "strata", allowDotAsName = TRUE)
  strata <- rownames(attr(terms, "factors"))[attr(terms, "specials")$strata]
  list(formula = of_time, event = as.character(left[[3L]]), strata = strata)
}

# A formula of the network that may hold Surv() and strata() beside what `safe_formula` allows: it reads the formula with their arguments in their
# place, and what it would refuse is refused.
safe_survival <- function(text) {
  tree <- if (is.character(text) && nchar(text) <= 4000L) tryCatch(str2lang(text), error = function(error) NULL)
  plain <- function(part) {
    if (!is.call(part)) return(part)
    inner <- lapply(as.list(part)[-1L], plain)
    called <- part[[1L]]
    if (is.name(called) && as.character(called) %in% c("Surv", "strata") && length(inner)) {
      return(Reduce(function(a, b) call("+", a, b), inner))
    }
    as.call(c(called, inner))
  }
  checked <- safe_formula(paste(deparse(plain(tree), width.cutoff = 500L), collapse = " "))
  stats::as.formula(tree, env = environment(checked))
}

# Combinations of levels, numbered.
stratum_numbers <- function(...) {
  with_next <- function(number, column) number * nlevels(column) + as.integer(column) - 1
  Reduce(with_next, lapply(list(...), as.factor), 0)
}

# The sums over strata at `beta`, as `train` returns them.
cox_sums <- function(made, beta) {
  p <- ncol(made$x)
  strata <- split(seq_along(made$time), made$strata)
  sums <- Reduce(`+`, lapply(strata, function(rows) {
    partial_likelihood(made$x[rows, , drop = FALSE], made$time[rows], made$event[rows], beta, made$ties)
  }))
  events <- sums[[length(sums) - 1L]]
  least <- max(FEWEST_EVENTS, p + 1)
  if (events < least) {
    haina_stop(sprintf("it has fewer than %.0f events, which its answer would give away", least))
  }
  loss <- sums[[length(sums) - 3L]] / (2 * events)
  list(params = sums, n = length(made$time), metrics = list(loss_before = loss))
}

# Sums of one stratum, packed as those of a glm: gradient, upper triangle of the negative Hessian, -2 log L, rows, events, 0.
#
# For d events at one time with risk set R and tied set D, w = exp(x'b), l = 0 .. d - 1, f_l = 0 (Breslow 1974) or l / d (Efron 1977):
#
#     a_l = sum_R w - f_l sum_D w,    log L = sum_D x'b - sum_l log a_l          (Therneau and Grambsch 2000, sec. 3.1 and 3.3)
#
# Rows are sorted once by time, so that risk sets are beginnings of cumulative sums. Columns are centred, which the likelihood does not see.
partial_likelihood <- function(x, time, event, beta, ties) {
  n <- nrow(x)
  p <- ncol(x)
  happened <- event > 0
  if (!any(happened)) return(c(numeric(p + p * (p + 1) / 2 + 1), n, 0, 0))
  latest <- order(-time)
  x <- sweep(x, 2L, colMeans(x))[latest, , drop = FALSE]
  happened <- happened[latest]
  rank <- time_ranks(time[latest])
  eta <- drop(x %*% beta)
  top <- max(eta)
  weighted <- exp(eta - top) * cbind(1, x)
  # Row ends[k] closes the k-th time from the latest: the risk set of that time is all rows up to it.
  ends <- c(which(diff(rank) > 0), n)
  deaths <- tabulate(rank[happened], length(ends))
  times <- which(deaths > 0)
  at <- rep(times, deaths[times])
  fraction <- if (ties == "efron") (sequence(deaths[times]) - 1) / deaths[at] else numeric(length(at))
  tied <- rowsum(weighted[happened, , drop = FALSE], rank[happened])
  risk <- matrix(apply(weighted, 2L, cumsum), n)[ends[at], , drop = FALSE]
  a <- risk - fraction * tied[match(at, times), , drop = FALSE]
  mean <- a[, -1L, drop = FALSE] / a[, 1L]
  # Each row is in the risk set of every time that is not later than its own: sums over those times, from the earliest up.
  of_times <- function(values) replace(numeric(length(ends)), times, rowsum(values, at))
  reach <- rev(cumsum(rev(of_times(1 / a[, 1L]))))[rank]
  reach <- reach - ifelse(happened, of_times(fraction / a[, 1L])[rank], 0)
  hessian <- crossprod(x, weighted[, -1L, drop = FALSE] * reach) - crossprod(mean)
  hessian <- (hessian + t(hessian)) / 2
  likelihood <- sum(eta[happened]) - sum(log(a[, 1L]) + top)
  gradient <- colSums(x[happened, , drop = FALSE]) - colSums(mean)
  c(gradient, hessian[lower.tri(hessian, diag = TRUE)], -2 * likelihood, n, sum(happened), 0)
}

# The number of each distinct time, from the latest, of times that do not rise. Times that differ by rounding only are one (coxph's `timefix`).
time_ranks <- function(time) {
  distinct <- sort(unique(time))
  gaps <- diff(distinct)
  same <- sqrt(.Machine$double.eps)
  first <- distinct[c(TRUE, gaps > same & gaps > same * mean(abs(distinct)))]
  length(first) - findInterval(time, first) + 1L
}
