#' Take part in a federation
#'
#' Joins with an invitation, and goes on until the federation ends: waits for a round, fetches the model, calls `train`, and sends what it returns.
#' Rows stay in this R session. A killed session is started again with the same call and goes on where it was; the invitation is used once.
#'
#' @section The function that trains:
#' `train = function(params, config)` gets the numbers of the model (named, where the federation has agreed on names) and a list `config`:
#' `round`, `federation`, `site`, `learning_rate`, `epochs`, `steps`, `batch_size`, `momentum`, `weight_decay`, `proximal`, `seed`, `measure`,
#' `seconds` (how long the round waits), `names`, `payload`, `length`, `layout` (name, dtype and shape of each tensor), `columns` (what rows look
#' like), `learner`, `file` (the federation file with its defaults), `settings` and `data`.
#'
#' It returns `list(params = , n = , metrics = )`: the trained numbers (of a federation that averages; the package sends the increment), the sums (of
#' one that adds, such as `learner = "glm"`), or `document = ` (of one that collects); how many rows were used; and named numbers to be shown.
#' Missing, infinite or wrongly many numbers are refused before anything is sent. An error ends the round for this site, and not the federation;
#' R's message travels, so it must not hold rows.
#'
#' @param invitation path of the `.invite` file, which need not be there any more at later starts; or of this site's folder.
#' @param train the function that trains; see below, [train_glm()], [train_glmnet()] and [train_caret()].
#' @param data whatever `train` finds in `config$data`; a data frame tells how many rows there are.
#' @param folder where this site keeps its identity and its outbox; by default `haina-node-NAME` beside the invitation.
#' @param periodic `TRUE`: train when it is this site's time (the setting `report_interval`), and not when a round opens.
#' @param once `TRUE`: end after one acknowledged update.
#' @param budget what all federations of this folder together may learn of the rows: an epsilon, or `c(epsilon = , delta = )`.
#' @param examples how many rows `train` uses, which is announced; by default those of `data`, or what a ready trainer says.
#' @param dataset what the owner calls the rows, for ledgers of privacy.
#' @param tell a function that shows a line to a person.
#' @return Invisibly, how it ended: `reason`, `federation`, `rounds` (the last one taken part in), `delivered` (updates acknowledged), and `params`,
#'   the numbers of the last model that was received.
#' @export
#' @examples
#' \dontrun{
#' rows <- read.csv("ward.csv")
#' join("hospital-a.invite", train = train_glm(rows))
#' join("hospital-a.invite", train = function(params, config) {
#'   fit <- glm(readmitted ~ age + stay, binomial, rows)
#'   list(params = coef(fit), n = nrow(rows), metrics = list(deviance = deviance(fit)))
#' })
#' }
join <- function(invitation, train, data = NULL, folder = NULL, periodic = FALSE, once = FALSE, budget = NULL,
                 examples = NULL, dataset = "", tell = message) {
  if (!is.function(train)) {
    haina_stop(paste("train is", class(train)[[1L]]), "a function(params, config), or a ready trainer such as train_glm(rows)")
  }
  if (is.null(examples)) examples <- rows_of(train, data)
  folder <- normalizePath(folder_of(invitation, folder), mustWork = FALSE)
  let_go <- alone(folder)
  on.exit(let_go())
  invited <- unused_invitation(invitation, folder, as.double(Sys.time()))
  if (!is.null(invited)) enrol_patiently(invited, folder, tell)
  site <- new_site(folder, train, data, examples, periodic, once, dataset, budget, tell)
  on.exit({
    if (!isTRUE(site$ended)) leave(site)
    let_go()
  })
  reason <- live(site)
  site$ended <- !once
  tell(paste("Ended:", reason))
  params <- if (length(site$model) && site$model[[1L]] != as.raw(0x7b)) model_params(site$model)$params
  names <- coefficient_names(site$brief)
  if (length(names) == length(params)) names(params) <- names
  invisible(list(reason = reason, federation = site$federation, rounds = site$rounds, delivered = site$delivered, params = params))
}

rows_of <- function(train, data) {
  said <- attr(train, "examples")
  if (!is.null(said)) return(said)
  if (is.data.frame(data) || is.matrix(data)) return(nrow(data))
  1
}

# A newcomer whose coordinator is away waits for it, with the same key.
enrol_patiently <- function(invited, folder, tell) {
  door <- list2env(list(own = list(expires = Inf, renewal = Inf), tell = tell), parent = emptyenv())
  own <- patiently(door, function() use_invitation(invited, folder))
  tell(sprintf("%s is known to the coordinator now; its key and certificate are in %s", own$name, folder))
  tell(paste("fingerprint of the coordinator's authority, to compare by telephone:", fingerprint(read_certificates(own$authority)[[1L]])))
}
