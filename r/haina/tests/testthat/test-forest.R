wards <- function(rows, seed) {
  set.seed(seed)
  data <- data.frame(
    age = rnorm(rows, 60, 15), ward = factor(sample(letters[1:9], rows, TRUE)), dose = rexp(rows),
    grade = factor(sample(c("low", "mid", "high"), rows, TRUE), c("low", "mid", "high"),
                   ordered = TRUE), smoker = runif(rows) > 0.7
  )
  score <- (data$ward %in% c("b", "d",
                             "i")) + (data$age > 55) + data$dose / 2 + data$smoker * (data$grade == "high")
  data$outcome <- factor(cut(score + rnorm(rows, 0, 0.5), c(-Inf, 1, 2, Inf), c("well", "ill", "dead")))
  data$days <- score * 10 + rnorm(rows)
  data
}

FEATURES <- c("age", "ward", "dose", "grade", "smoker")

# The votes that R's packages say of themselves, class by class.
own_votes <- function(model, rows) {
  if (inherits(model, "randomForest")) {
    return(unclass(predict(model, rows, type = "vote", norm.votes = FALSE)))
  }
  each <- predict(model, rows, predict.all = TRUE, num.threads = 1)$predictions
  vapply(seq_along(model$forest$levels), function(k) rowSums(each == k), double(nrow(rows)))
}

expect_same <- function(found, wanted) expect_identical(unname(found), matrix(as.double(wanted), nrow(found)))

test_that("randomForest votes as itself, with factors", {
  skip_if_not_installed("randomForest")
  site <- wards(400, 1)
  new <- wards(900, 2)
  model <- randomForest::randomForest(site[FEATURES], site$outcome, ntree = 100, mtry = 4, importance = TRUE)
  document <- forest_document(model)
  votes <- forest_votes(document, new)
  expect_same(votes, own_votes(model, new))
  expect_identical(colnames(votes), c("well", "ill", "dead"))
  # Classes too, but where R draws lots.
  tied <- apply(votes, 1, function(row) sum(row == max(row)) > 1)
  expect_identical(as.character(forest_predict(document, new))[!tied],
                   as.character(predict(model, new))[!tied])
  expect_gt(sum(tied), 0)
  expect_identical(as.character(forest_predict(document, new)), colnames(votes)[apply(votes, 1, which.max)])
  # Levels in another order, as text, and columns in another order are the same rows.
  mixed <- new[rev(FEATURES)]
  mixed$ward <- as.character(mixed$ward)
  expect_identical(forest_votes(document, mixed), votes)
  days <- randomForest::randomForest(site[FEATURES], site$days, ntree = 50)
  expect_identical(max(abs(forest_predict(forest_document(days), new) - predict(days, new))), 0)
})

test_that("factors of 53 levels keep every bit of their masks", {
  skip_if_not_installed("randomForest")
  set.seed(4)
  data <- data.frame(code = factor(sample(sprintf("l%02d", 1:53), 1500, TRUE)), x = rnorm(1500))
  y <- as.integer(data$code) %% 7 + data$x
  model <- randomForest::randomForest(data, y, ntree = 20)
  expect_identical(max(abs(forest_predict(forest_document(model), data) - predict(model, data))), 0)
})

test_that("ranger votes as itself, however it treats factors", {
  skip_if_not_installed("ranger")
  site <- wards(260, 3)
  new <- wards(900, 2)
  for (mode in c("ignore", "order", "partition")) {
    grow <- function(y, ...) {
      ranger::ranger(x = site[FEATURES], y = y, num.trees = 60, respect.unordered.factors = mode,
                     num.threads = 1, seed = 7, ...)
    }
    hard <- grow(site$outcome)
    expect_same(forest_votes(forest_document(hard, site), new), own_votes(hard, new))
    soft <- grow(site$outcome, probability = TRUE)
    shares <- forest_predict(forest_document(soft, site), new, "prob")
    expect_identical(max(abs(shares - predict(soft, new, num.threads = 1)$predictions[, colnames(shares)])),
                     0)
    days <- grow(site$days)
    expect_identical(max(abs(forest_predict(forest_document(days, site), new) - predict(days, new,
        num.threads = 1)$predictions)), 0)
  }
  expect_error(forest_document(hard), "does not remember the levels")
})

test_that("forests merge, whoever grew them", {
  skip_if_not_installed("randomForest")
  skip_if_not_installed("ranger")
  columns <- forest_columns(wards(400, 1)[FEATURES])
  labels <- c("dead", "ill", "unknown", "well")
  one <- wards(400, 1)
  two <- wards(260, 3)
  first <- forest_document(randomForest::randomForest(one[rev(FEATURES)], one$outcome, ntree = 100),
                           columns = columns, labels = labels)
  second <- forest_document(ranger::ranger(outcome ~ ., two[c(FEATURES, "outcome")], num.trees = 100,
                                           num.threads = 1), two, columns, labels)
  new <- wards(900, 2)
  both <- forest_merge(list(first, forest_read(second)))
  expect_identical(forest_votes(both, new), forest_votes(first, new) + forest_votes(second, new))
  expect_true(all(rowSums(forest_votes(both, new)) == 200))
  expect_true(all(forest_votes(both, new)[, "unknown"] == 0))
  expect_identical(levels(forest_predict(both, new)), labels)
  expect_output(print(forest_read(both)), "200 trees on 15 features, for 4 classes")
  # Canonical in R too.
  expect_identical(forest_bytes(forest_read(both)), both)
  other <- columns
  other[[2]]$levels <- rev(other[[2]]$levels)
  third <- forest_document(randomForest::randomForest(one[FEATURES], one$outcome, ntree = 2), columns = other,
                           labels = labels)
  expect_error(forest_merge(list(first, third)), "other columns or levels")
  expect_error(forest_merge(list()), "at least one")
})

test_that("models that trees cannot say are refused", {
  skip_if_not_installed("randomForest")
  site <- wards(100, 1)
  x <- site[FEATURES]
  expect_error(forest_document(lm(days ~ age, site)), "class lm")
  expect_error(forest_document(randomForest::randomForest(x, site$days, ntree = 3, corr.bias = TRUE)),
               "corr.bias")
  expect_error(forest_document(randomForest::randomForest(x, site$outcome, ntree = 3,
                                                          cutoff = c(0.5, 0.3, 0.2))), "cutoff")
  expect_error(forest_document(randomForest::randomForest(x, site$outcome, ntree = 3, keep.forest = FALSE)),
               "keep.forest")
  expect_error(forest_document(randomForest::randomForest(x, ntree = 3)), "unsupervised")
  model <- randomForest::randomForest(x, site$outcome, ntree = 3)
  columns <- forest_columns(x)
  expect_error(forest_document(model, columns = columns[-1]), "the model has the columns")
  columns[[2]]$levels <- letters[1:8]
  expect_error(forest_document(model, columns = columns), "1 levels of column 'ward' are not agreed")
  columns[[2]]$levels <- character()
  expect_error(forest_document(model, columns = columns), "'ward' is a factor")
  expect_error(forest_document(model, labels = c("well", "ill")), "1 classes of the model are not agreed")
})

rows_agreed <- function(site, ...) {
  columns <- forest_columns(site[FEATURES])
  learner <- list(kind = "forest", task = "classification", classes = 3, trees = 100, min_leaf = 5,
                  min_cell = 10, columns = columns,
                  labels = list("well", "ill", "dead"))
  list(learner = utils::modifyList(learner, list(...)), seed = 5, round = 1, site = "a",
       columns = list(classes = list("well", "ill", "dead"),
                      columns = list(target = "outcome", features = as.list(FEATURES), missing = "refuse")))
}

test_that("the trainer sends trees and counts, and keeps rows at home", {
  skip_if_not_installed("randomForest")
  skip_if_not_installed("ranger")
  site <- wards(397, 1)
  for (engine in c("randomForest", "ranger")) {
    trainer <- train_random_forest(site[c(FEATURES, "outcome")], ntree = 100, mtry = 4, engine = engine)
    expect_null(forest_diagnosis(trainer))
    expect_message(sent <- trainer(raw(), rows_agreed(site)), "this site only")
    expect_named(sent, c("document", "n", "metrics"))
    expect_identical(sent$n, 397L)
    # What the bytes hold: no list is as long as the table, but for trees that happen to have so many nodes, of which there are none.
    parsed <- jsonlite::parse_json(rawToChar(sent$document))
    expect_setequal(names(parsed),
                    c("format", "version", "kind", "classes", "features", "columns", "labels", "forests"))
    expect_setequal(names(parsed$forests[[1]]),
                    c("source", "rule", "soft", "examples", "importance", "trees"))
    for (tree in parsed$forests[[1]]$trees) {
      expect_true(all(names(tree) %in% c("l", "r", "f", "thr", "set", "v")))
      expect_true(all(lengths(tree) != 397L))
    }
    counts <- forest_diagnosis(trainer)$confusion
    said <- unlist(sent$metrics[startsWith(names(sent$metrics), "confusion/")])
    expect_true(all(said >= 10))
    expect_equal(sum(said), sum(counts[counts >= 10]))
    expect_setequal(grep("importance", names(sent$metrics), value = TRUE), paste0("importance/", FEATURES))
    expect_length(forest_diagnosis(trainer)$predicted, 397)
    # The same task, the same bytes; another site, other trees; and R's own random numbers go on.
    set.seed(1)
    before <- .Random.seed
    again <- suppressMessages(trainer(raw(), rows_agreed(site)))
    expect_identical(again$document, sent$document)
    expect_identical(.Random.seed, before)
    elsewhere <- utils::modifyList(rows_agreed(site), list(site = "b"))
    expect_false(identical(suppressMessages(trainer(raw(), elsewhere))$document, sent$document))
  }
})

test_that("no leaf that leaves is smaller than agreed", {
  skip_if_not_installed("randomForest")
  skip_if_not_installed("ranger")
  site <- wards(300, 6)
  columns <- forest_columns(site[FEATURES])
  coded <- forest_rows(list(columns = columns), site[FEATURES])
  smallest <- function(forest, inbag) {
    trees <- forest$forests[[1]]$trees
    min(mapply(function(tree, bag) {
      ends <- tree_leaves(tree, coded$x, coded$codes)
      min(tabulate(ends[bag > 0], length(tree$l))[tree$l == 0L])
    }, trees, inbag))
  }
  for (engine in c("randomForest", "ranger")) for (target in c("outcome", "days")) {
    rows <- list(x = site[FEATURES], y = site[[target]], columns = columns,
                 labels = if (target == "outcome") levels(site$outcome), coded = coded)
    set.seed(2)
    model <- grown_model(engine, rows, 30, 4, FALSE, 5)
    bags <- if (engine == "ranger") model$inbag.counts else lapply(1:30, function(k) model$inbag[, k])
    expect_lt(smallest(forest_of(model, rows$x, columns), bags), 5)
    expect_gte(smallest(sendable(model, rows, 5), bags), 5)
    # Nothing is cut where leaves may have one row.
    expect_identical(forest_bytes(sendable(model, rows, 1)),
                     forest_bytes(forest_of(model, rows$x, columns, rows$labels)))
    # A leaf that was made says what its rows say.
    whole <- sendable(model, rows, 10000)
    expect_true(all(vapply(whole$forests[[1]]$trees, function(tree) length(tree$l), 0L) == 1L))
    if (target == "days") {
      means <- vapply(bags, function(bag) sum(bag * rows$y) / sum(bag), 0)
      expect_equal(vapply(whole$forests[[1]]$trees, function(tree) tree$votes[[1]], 0), means)
    }
  }
})

test_that("the trainer says what is wrong, and shows no cell", {
  skip_if_not_installed("randomForest")
  site <- wards(120, 1)
  data <- site[c(FEATURES, "outcome")]
  quiet <- function(data, config = rows_agreed(site), ...) train_random_forest(data, quiet = TRUE, ...)(raw(),
      config)
  expect_error(train_random_forest(as.list(data)), "a data frame")
  expect_error(train_random_forest(data, ntree = 0), "ntree is 0")
  expect_error(quiet(data, ntree = 101), "at most 100, as the federation says")
  expect_error(quiet(data, config = list(learner = list(kind = "glm"))), "does not collect forests")
  expect_error(quiet(data[1:9, ]), "fewer than 10 rows")
  expect_error(quiet(data[-2]), "ward")
  expect_error(quiet(data, formula = outcome ~ age), "the formula asks for age")
  expect_error(quiet(data[data$outcome == "ill", ]), "two classes or more")
  foreign <- data
  foreign$ward <- as.character(foreign$ward)
  foreign$ward[3:4] <- "secret"
  error <- tryCatch(quiet(foreign), error = conditionMessage)
  expect_match(error, "something else\\. .*in 2 of")
  expect_no_match(error, "secret")
  missing <- data
  missing$age[1] <- NA
  expect_error(quiet(missing), "missing.*: 1 here")
  # A class that this site lacks is no obstacle.
  some <- quiet(data[data$outcome != "dead", ], engine = "randomForest", ntree = 5)
  expect_true(all(forest_votes(some$document, data)[, "dead"] == 0))
})

# What Python grew: float32 rules, soft leaves, one-hot columns.
PYTHON <- paste0(
  '{"format":"haina-forest","version":2,"kind":"classification","classes":2,"features":3,"columns":[{"name":"x"},{"name":"g",',
  '"levels":["a","b"]}],"labels":["no","yes"],"forests":[{"source":"scikit-learn","rule":"float32(x)<=thr","soft":true,"examples":30,',
  '"importance":[0.5,0.25,"0x1p-2"],"trees":[{"l":[1,-1,3,-1,-1],"r":[2,-1,4,-1,-1],"f":[0,0,2,0,0],"thr":["0x1.999999999999ap-4",0,0.5,0,0],',
  '"v":[0,[0.9,0.1],0,[0.25,0.75],[0,1]]}]}]}'
)

test_that("documents of Python are read, and their rule is kept", {
  # float32(0.1) > 0.1, so in single precision 0.1 goes right.
  rows <- data.frame(x = c(0.1, 0.09, 0.1), g = c("a", "a", "b"))
  expect_equal(unname(forest_votes(charToRaw(PYTHON), rows)), rbind(c(0.25, 0.75), c(0.9, 0.1), c(0, 1)))
  expect_equal(forest_votes(charToRaw(PYTHON), cbind(c(0.1, 0.09, 0.1), c(1, 1, 0), c(0, 0, 1))),
               forest_votes(charToRaw(PYTHON), rows))
  first <- sub('"columns".*"forests"', '"forests"', sub('"version":2', '"version":1', PYTHON))
  expect_identical(forest_predict(charToRaw(first), rbind(c(0.09, 1, 0))), factor("0", c("0", "1")))
  expect_error(forest_votes(charToRaw(PYTHON), data.frame(x = 1)), "lacks 'g'")
  expect_error(forest_votes(charToRaw(PYTHON), data.frame(x = 1, g = "c")), "in 1 of 1 rows")
  expect_error(forest_votes(charToRaw(PYTHON), data.frame(x = NA_real_, g = "a")), "not finite")
  expect_error(forest_votes(charToRaw(PYTHON), matrix(0, 1, 2)), "2 columns")
})

test_that("damaged and hostile documents are refused", {
  SETS <- sub("\"f\":\\[0,0,2,0,0\\].*",
              '"f":[0,0,1,0,0],"thr":[0.5,0,0,0,0],"set":["","","01","",""],"v":[0,0,0,1,0]}]}]}', PYTHON)
  SETS <- sub('"soft":true', '"soft":false', SETS)
  changed <- function(from, to, document = SETS) {
    stopifnot(grepl(from, document, fixed = TRUE))
    charToRaw(sub(from, to, document, fixed = TRUE))
  }
  expect_identical(unname(forest_votes(charToRaw(SETS), data.frame(x = 1, g = c("a", "b")))),
                   rbind(c(1, 0), c(0, 1)))
  refused <- list(
    list(raw(), "not JSON"), list(as.raw(c(0xff, 0xfe)), "not JSON"), list(charToRaw("[1]"),
        "not JSON"), list(charToRaw("{\"a\":"), "not JSON"),
    list(charToRaw(paste0("{\"a\":", strrep("[", 1e6))), "not JSON"), list(charToRaw("{}"), "no forest"),
    list(changed('"version":2', '"version":3'), "no forest"), list(changed('"version":2', '"version":true'),
        "no forest"),
    list(changed('"classes":2', '"classes":1'), "1 classes"), list(changed('"classes":2', '"classes":1e9'),
        "'classes'"),
    list(changed('"features":3', '"features":4'),
         "3 features"), list(changed('"levels":["a","b"]', '"levels":["a","a"]'), "no name"),
    list(changed('"levels":["a","b"]', '"levels":["a",1]'),
         "no text"), list(changed('"labels":["no","yes"]', '"labels":["no"]'), "1 classes have"),
    list(changed('"name":"x"', '"name":"g"'), "no name"), list(changed('"soft":false', '"soft":0'), "soft"),
    list(changed('"float32(x)<=thr"', '"x<thr"'),
         "rule"), list(changed('"importance":[0.5', '"importance":[-0.5'), "negative"),
    list(changed('"l":[1,-1,3,-1,-1]', '"l":[1,-1,0,-1,-1]'), "do not make a tree"),
    list(changed('"l":[1,-1,3,-1,-1]', '"l":[0,-1,3,-1,-1]'), "do not make a tree"),
    list(changed('"l":[1,-1,3,-1,-1]', '"l":[2,-1,3,-1,-1]'), "do not make a tree"),
    list(changed('"r":[2,-1,4,-1,-1]', '"r":[2,-1,-1,-1,-1]'), "do not make a tree"),
    list(changed('"l":[1,-1,3,-1,-1]', '"l":[1,-1,3.5,-1,-1]'),
         "index"), list(changed('"r":[2,-1,4,-1,-1]', '"r":[2,-1]'), "2 entries"),
    list(changed('"f":[0,0,1,0,0]', '"f":[3,0,1,0,0]'),
         "index"), list(changed('"f":[0,0,1,0,0]', '"f":[0,0,0,0,0]'), "no factor begins"),
    list(changed('"thr":[0.5', '"thr":["0x1p99999"'),
         "not finite"), list(changed('"thr":[0.5', '"thr":["system(1)"'), "not a number"),
    list(changed('"thr":[0.5', '"thr":[[]'), "not a number"), list(changed('"thr":[0.5', '"thr":[null'),
        "not a number"),
    list(changed('"01"', '"011"'), "2 digits"), list(changed('"01"', '"02"'),
                                                     "2 digits"), list(changed('"01"', "1"), "2 digits"),
    list(changed('"v":[0,0,0,1,0]', '"v":[0,0,0,2,0]'),
         "index"), list(changed('"v":[0,0,0,1,0]', '"v":{"a":1}'), "'v' has"),
    list(changed('"l":', '"l":[-1],"l":'), "no JSON object"),
    list(changed("[0.9,0.1]", "[0.9,0.2]", PYTHON), "sum to 1"), list(changed("[0.9,0.1]", "1", PYTHON),
        "2 shares")
  )
  for (case in refused) expect_error(forest_read(case[[1]]), case[[2]], class = "haina_layout_error")
  expect_error(forest_read("{}"), "raw vector")
  # Brackets in names are names.
  open <- changed('"levels":["a","b"]', sprintf('"levels":["%s","\\"]}"]', strrep("[", 100)))
  expect_identical(forest_read(open)$columns[[2]]$levels, c(strrep("[", 100), "\"]}"))
})
