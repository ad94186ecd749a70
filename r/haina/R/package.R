#' Take part in federated learning from R
#'
#' A site of a Haina federation, in R: [join()] with an invitation and a function that trains. Ready trainers: [train_glm()] for exact regressions,
#' [train_cox()] and
#' [train_summary()] for exact survival models and summaries, [train_glmnet()] and [train_caret()] for coefficients that are averaged,
#' [train_random_forest()] for forests.
#'
#' @keywords internal
"_PACKAGE"

# How ggplot2 names the data of a layer.
utils::globalVariables(".data")
