#' Laplace noise
#'
#' Adds noise of the Laplace distribution, from the operating system's random bytes and not from R's own generator, whose state others can guess. The
#' scale is `sensitivity / epsilon` (Dwork et al. 2006): a coefficient of 2.5 with `epsilon = 0.5` and sensitivity 1 gets noise of scale 2.
#'
#' Noise and result are whole numbers of a grid about 1e-9 of the sensitivity, drawn exactly, so that the last bits of a number tell nothing of the
#' number that noise covers (Mironov 2012). What rounding to the grid adds to the sensitivity is counted in.
#'
#' @param x a numeric vector.
#' @param scale the scale of the noise, > 0; or give the next two.
#' @param sensitivity how much one change of the rows moves `x`, in L1 norm, > 0.
#' @param epsilon the privacy parameter of this one release, > 0.
#' @return `x` with independent noise on each number; names stay.
#' @export
#' @examples
#' laplace(2.5, sensitivity = 1, epsilon = 0.5)
laplace <- function(x, scale = NULL, sensitivity = 1, epsilon = NULL) {
  if (!is.numeric(x) || !all(is.finite(x))) haina_stop("x is not all finite numbers", "a numeric vector")
  if (is.null(scale)) {
    positive(epsilon, "epsilon")
    positive(sensitivity, "sensitivity")
    scale <- sensitivity / epsilon
  } else if (!is.null(epsilon)) {
    haina_stop("scale and epsilon are both given", "one of them: scale is sensitivity / epsilon")
  }
  positive(scale, "scale")
  if (!length(x)) return(x)
  # The finest grid on which numbers as large as these are exact in doubles.
  units <- 2^min(30, floor(51 - log2(max(abs(x) / scale, 1))))
  if (units < 1024) haina_stop(sprintf("x is as large as %g times the scale of the noise", max(abs(x)) / scale), "up to 1e12 times")
  step <- scale / units
  # Two vectors that differ by the sensitivity differ by this much once each number is rounded.
  noise <- mechanism_noise(noise_mechanism("laplace", 1), length(x), units + length(x), noise_stream(), tables = laplace_tables)
  x[] <- (round(x / step) + noise) * step
  x
}

# A table takes a second to make and is the same whenever it is made.
laplace_tables <- new.env(parent = emptyenv())

positive <- function(value, name) {
  if (!is.numeric(value) || length(value) != 1L || !isTRUE(value > 0 && is.finite(value))) {
    haina_stop(paste(name, "is", cut_text(format(value), 40L)), "one finite number > 0")
  }
}

#' A privacy budget in a file
#'
#' Counts what a site has spent, so that no more leaves than its owner allows. A spending is written down before the numbers leave: into a new file
#' that takes the old one's place, and, where the system has `sync` for single files, onto the disk. A killed session has spent what it may have sent,
#' and never less. Without that `sync`, a power cut can take back the last seconds.
#'
#' Epsilons add up (basic composition, Dwork et al. 2006). The budgets of `[privacy]` in a federation file are counted apart.
#'
#' @param epsilon what may be spent in all, > 0. A file that is there keeps its own; another number is refused.
#' @param file where it is kept; the folder must be writable.
#' @return A list of functions: `spend(epsilon, what)` takes from the budget or stops with an error; each call counts, for each makes fresh
#'   noise. `spent()` and `left()` say how it stands; `entries()` is a data frame of what was spent on what.
#' @export
#' @examples
#' budget <- privacy_budget(2, tempfile(fileext = ".json"))
#' budget$spend(0.5, "trial/1")
#' budget$left()
privacy_budget <- function(epsilon, file) {
  positive(epsilon, "epsilon")
  if (!file.exists(file)) budget_write(file, list(epsilon = epsilon, entries = list()))
  known <- budget_read(file)
  if (!identical(as.double(known$epsilon), as.double(epsilon))) {
    haina_stop(sprintf("the budget in %s is epsilon %g, and %g is given", file, known$epsilon, epsilon), sprintf("%g", known$epsilon),
               "A larger budget is a decision of the owner of the rows: change the file by hand")
  }
  spent <- function() sum(vapply(budget_read(file)$entries, `[[`, 0, "epsilon"))
  spend <- function(epsilon, what) {
    positive(epsilon, "epsilon")
    now <- budget_read(file)
    before <- sum(vapply(now$entries, `[[`, 0, "epsilon"))
    if (before + epsilon > now$epsilon * (1 + 1e-12)) {
      privacy_stop("the privacy budget of this site is spent",
                   allowed = sprintf("epsilon %g in all, of which %g is spent and %g is asked for", now$epsilon, before, epsilon))
    }
    now$entries <- c(now$entries, list(list(what = what, epsilon = epsilon, at = as.double(Sys.time()))))
    budget_write(file, now)
    invisible(now$epsilon - before - epsilon)
  }
  entries <- function() {
    found <- budget_read(file)$entries
    data.frame(what = vapply(found, `[[`, "", "what"), epsilon = vapply(found, `[[`, 0, "epsilon"),
               at = as.POSIXct(vapply(found, `[[`, 0, "at"), origin = "1970-01-01", tz = "UTC"))
  }
  list(spend = spend, spent = spent, left = function() epsilon - spent(), entries = entries)
}

budget_read <- function(file) {
  said <- tryCatch(jsonlite::fromJSON(rawToChar(read_whole(file)), simplifyVector = FALSE), error = function(error) NULL)
  good <- is.numeric(said$epsilon) && all(vapply(said$entries, function(e) is.numeric(e$epsilon) && is.character(e$what), NA))
  if (!good) privacy_stop(paste(file, "is no privacy budget, or damaged"), remedy = "Nothing leaves before it is mended")
  said$entries <- lapply(said$entries, function(entry) {
    entry$epsilon <- as.double(entry$epsilon)
    entry$at <- as.double(entry$at)
    entry
  })
  said
}

budget_write <- function(file, said) durable(write_whole(file, to_json(said)))
