# What may be sent of an update in the clear: bounded and covered as the federation file promises, and saying no more of its rows than is needed.

# Whether updates leave as parts of secure sums.
is_hidden <- function(site) !is.null(site$policy$hidden)

# A list of `vector` and `report`.
sent_update <- function(site, vector, report, task) {
  policy <- site$policy
  if (is.null(policy$mechanism)) return(list(vector = vector, report = report))
  limit <- policy_limit(policy, task)
  bare <- report[intersect(names(report), c("examples", "steps", "normalizer"))]
  within <- bound_vector(vector, limit, policy$mechanism$norm)
  if (policy$adaptive) bare$extra <- list(unclipped = as.double(identical(within, vector)))
  if (policy$noise == "local") within <- policy_cover(policy, within, limit, noise_stream())
  list(vector = within, report = bare)
}
