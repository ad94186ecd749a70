# R's own answers about four sites whose rows lie in one table, for the tests of federated statistics.
#
#   Rscript make.R TABLE OUT [--table]
#
# TABLE is sites.csv beside this file; with --table it is made anew first (numbers of few digits, so that all readers read the same doubles). OUT gets
# JSON whose numbers are hexadecimal, so that no digit is lost.
suppressMessages({library(glmnet); library(survival)})
args <- commandArgs(trailingOnly = TRUE)

make_table <- function(path) {
  set.seed(42)
  sizes <- c(150, 400, 90, 260)
  n <- sum(sizes)
  site <- rep(seq_along(sizes), sizes)
  x <- sapply(1:6, function(j) rnorm(n, 0.4 * (site - 2.5), 1 + 0.2 * site))
  x[, 2] <- 0.7 * x[, 1] + x[, 2]
  d <- data.frame(site = paste0("s", site), round(x, 3))
  names(d)[-1] <- paste0("x", 0:5)
  d$x5 <- 50 + round(10 * d$x5, 1)
  d$sex <- ifelse(runif(n) < 0.3 + 0.1 * site, "M", "F")
  ward <- sample(c("a", "b", "c"), n, replace = TRUE)
  d$ward <- ifelse(site == 3 & ward == "c", "a", ward)
  d$smoker <- runif(n) < 0.3
  d$level <- sample(c(2, 9, 10), n, replace = TRUE)
  d$days <- sample(30:400, n, replace = TRUE)
  eta <- with(d, -0.2 + 0.5 * x0 - 0.4 * x1 + 0.3 * x3 + 0.008 * (x5 - 50) + 0.4 * (sex == "M") - 0.3 * (ward == "b"))
  d$yb <- rbinom(n, 1, plogis(eta))
  d$yg <- round(eta + rnorm(n), 4)
  d$yp <- rpois(n, exp(pmin(0.3 * eta, 3)))
  d$end <- ifelse(d$yb == 1, "dead", "alive")
  event_time <- rexp(n, exp(0.5 * eta))
  censored <- rexp(n, 0.3)
  d$time <- round(pmin(event_time, censored), 2) + 0.01
  d$event <- as.integer(event_time <= censored)
  d$stay <- ifelse(runif(n) < 0.06, NA, round(rgamma(n, 2, 0.3), 2))
  d$grade <- ifelse(runif(n) < 0.05, NA, sample(c("low", "mid", "high"), n, replace = TRUE))
  d$score <- round(plogis(eta + rnorm(n)), 5)
  d$fold <- unlist(lapply(sizes, function(k) sample(rep(1:5, length.out = k))))
  write.csv(d, path, row.names = FALSE, quote = FALSE)
}
if ("--table" %in% args) make_table(args[1])
d <- read.csv(args[1])
out <- list()

# ---- generalised linear models -------------------------------------------------------------------------------------
formulas <- list(
  binomial = list(
    numbers = yb ~ x0 + x1 + x2 + x3 + x4 + x5,
    interaction = yb ~ sex * x0 + ward,
    missing = yb ~ stay + grade * sex,
    classes = as.factor(end) ~ x0 + smoker + sex:x1
  ),
  gaussian = list(
    numbers = yg ~ x0 + x1 + x2 + x3 + x4 + x5,
    factors = yg ~ ward * sex + x1,
    no_intercept = yg ~ sex * ward - 1,
    cells = yg ~ ward:sex - 1,
    slopes = yg ~ x0:ward - 1,
    margin = yg ~ sex + sex:ward,
    three = yg ~ sex:x0:ward + x1,
    cube = yg ~ (x0 + sex + smoker)^3,
    order = yg ~ x1 + sex:ward + x0 + ward,
    arithmetic = yg ~ I(x0^2) + I((x1 + 1)^2 / 2) + exp(x2 / 4) + log(x5 + 1000) + sqrt(abs(x3)),
    levels = yg ~ factor(level) * x0,
    nested = yg ~ ward / x0
  ),
  poisson = list(
    numbers = yp ~ x0 + x1 + x2 + x3 + x4 + x5,
    offset = yp ~ x0 + sex + offset(log(days)),
    slopes = yp ~ ward:x0 + sex
  )
)
fit <- function(formula, family, data, control) {
  m <- glm(formula, family = family, data = data, control = control)
  s <- summary(m)
  list(
    coef = s$coefficients[, 1], se = s$coefficients[, 2], p = s$coefficients[, 4], names = rownames(s$coefficients),
    deviance = m$deviance, null = m$null.deviance, df = m$df.residual, null_df = m$df.null, aic = m$aic,
    dispersion = s$dispersion, n = nobs(m), ci = as.vector(t(confint.default(m)))
  )
}
tight <- glm.control(epsilon = 1e-15, maxit = 100)
for (family in names(formulas)) for (case in names(formulas[[family]])) {
  key <- paste("glm", family, case, sep = "/")
  out[[key]] <- fit(formulas[[family]][[case]], family, d, tight)
  out[[paste0(key, "/default")]] <- fit(formulas[[family]][[case]], family, d, glm.control())
}
out[["glm/gaussian/dot"]] <- fit(yg ~ .^2 - x0:sex, "gaussian", d[c("x0", "sex", "yg", "ward")], tight)

# ---- elastic net ---------------------------------------------------------------------------------------------------
X <- as.matrix(d[paste0("x", 0:5)])
outcome <- c(gaussian = "yg", binomial = "yb", poisson = "yp")
for (family in names(outcome)) for (alpha in c(1, 0.5)) for (standardize in c(TRUE, FALSE)) {
  m <- glmnet(X, d[[outcome[family]]], family = family, alpha = alpha, standardize = standardize,
              thresh = 1e-14, nlambda = 30, maxit = 1e7)
  out[[paste("glmnet", family, alpha, standardize, sep = "/")]] <-
    list(lambda = m$lambda, beta = as.vector(rbind(m$a0, as.matrix(m$beta))))
}
for (family in names(outcome)) for (alpha in c(1, 0.5)) {
  y <- d[[outcome[family]]]
  path <- glmnet(X, y, family = family, alpha = alpha, thresh = 1e-14, nlambda = 30, maxit = 1e7)
  m <- cv.glmnet(X, y, family = family, alpha = alpha, foldid = d$fold, lambda = path$lambda, thresh = 1e-14, maxit = 1e7)
  own <- cv.glmnet(X, y, family = family, alpha = alpha, foldid = d$fold, nlambda = 30, thresh = 1e-14, maxit = 1e7)
  out[[paste("cv", family, alpha, sep = "/")]] <-
    list(lambda = m$lambda, cvm = m$cvm, cvsd = m$cvsd, lambda_min = m$lambda.min, lambda_1se = m$lambda.1se,
         own_min = own$lambda.min, own_1se = own$lambda.1se,
         beta_min = as.vector(as.matrix(coef(path, s = m$lambda.min))))
}

# ---- Cox -----------------------------------------------------------------------------------------------------------
survivals <- list(
  plain = Surv(time, event) ~ x0 + x1 + x3 + strata(site),
  factors = Surv(time, event) ~ sex * x0 + ward + I(x1^2) + strata(site),
  strata = Surv(time, event) ~ x0 + ward + strata(site, sex)
)
for (ties in c("efron", "breslow")) for (case in names(survivals)) {
  m <- coxph(survivals[[case]], d, ties = ties, control = coxph.control(eps = 1e-14, iter.max = 50, toler.chol = 1e-15))
  s <- summary(m)
  out[[paste("cox", ties, case, sep = "/")]] <- list(
    coef = coef(m), names = names(coef(m)), se = s$coefficients[, 3], p = s$coefficients[, 5], loglik = m$loglik,
    tests = c(s$logtest[1], s$waldtest[1], s$sctest[1]), test_p = c(s$logtest[3], s$waldtest[3], s$sctest[3]),
    wald = as.vector(coef(m) %*% solve(vcov(m)) %*% coef(m)), n = m$n, events = m$nevent)
}

# ---- summaries -----------------------------------------------------------------------------------------------------
for (name in c("x0", "x5", "stay", "yp")) {
  v <- d[[name]][!is.na(d[[name]])]
  out[[paste0("describe/", name)]] <- list(
    n = length(v), missing = sum(is.na(d[[name]])), mean = mean(v), sd = sd(v),
    quantiles = as.vector(quantile(v, c(0.05, 0.25, 0.5, 0.75, 0.95))), range = range(v))
}
out[["cor"]] <- list(value = as.vector(cor(d[c("x0", "x1", "x5", "stay")], use = "complete.obs")),
                     cov = as.vector(cov(d[c("x0", "x1", "x5", "stay")], use = "complete.obs")))
out[["table"]] <- list(ward = as.vector(table(d$ward)), cross = as.vector(t(table(d$ward, d$sex))))
breaks <- c(-2, -1, 0, 0.5, 2)
inside <- d$x0[d$x0 >= -2 & d$x0 <= 2]
out[["histogram"]] <- list(counts = hist(inside, breaks = breaks, plot = FALSE)$counts,
                           below = sum(d$x0 < -2), above = sum(d$x0 > 2))
cases <- d$yb == 1
ranks <- rank(d$score)
out[["auc"]] <- list(value = (sum(ranks[cases]) - sum(cases) * (sum(cases) + 1) / 2) / (sum(cases) * sum(!cases)),
                     cases = sum(cases), controls = sum(!cases))
out[["version"]] <- list(names = c(R.version.string, paste("glmnet", packageVersion("glmnet")), paste("survival", packageVersion("survival"))))

write_value <- function(v) {
  if (is.list(v)) paste0("{", paste0('"', names(v), '": ', sapply(v, write_value), collapse = ",\n"), "}")
  else if (is.character(v)) paste0("[", paste0('"', v, '"', collapse = ", "), "]")
  else paste0("[", paste0('"', sprintf("%a", as.double(v)), '"', collapse = ", "), "]")
}
writeLines(write_value(out), args[2])
