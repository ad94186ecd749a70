# A coordinator that lies: every lie is refused with its own reason, and nothing is given away.

# Six sites of R, and a coordinator between them that a test turns. It keeps what members are told, and holds no secret.
circle_of <- function(
  names = letters[1:6], folder = withr_folder(), round = 1, listed = NULL, begin = NULL, fewest = 3,
  limit = NULL
) {
  brief <- list(file = list(privacy = list(
    unit = "client", noise = "none", secure_aggregation = list(dropout = 0.34, range = 16), clip = NULL
  ),
                            train = list(rounds = 3), strategy = list(
                              preset = "median"
                            )), payload = "average")
  circle <- new.env()
  circle$policy <- policy_of(brief)
  circle$round <- round
  circle$begun <- character()
  task <- list(
    federation = "trial", round = round, version = 0, model = strrep("ab", 32), bytes = 1, learning_rate = 1
  )
  for (name in names) dir.create(file.path(folder, name), showWarnings = FALSE)
  part <- function(name) {
    home <- file.path(folder, name)
    begun <- function(round) circle$begun <- c(circle$begun, name)
    secagg_part(circle$policy, task, list(vector = c(1, -2, 3, 4, 5), examples = 10), name, signing_key(home),
                secagg_peers(home, listed), fewest, if (is.null(begin)) begun else begin)
  }
  circle$task <- task
  circle$folder <- folder
  circle$parts <- sapply(names, part, simplify = FALSE)
  circle$adverts <- lapply(circle$parts, function(part) openssl::base64_decode(part$advert$data))
  circle$shared <- circle$words <- circle$consents <- circle$answers <- list()
  circle
}

withr_folder <- function() {
  folder <- tempfile("circle")
  dir.create(folder)
  folder
}

# What an honest coordinator asks; `...` is what a liar puts in its place.
step_of <- function(circle, name, stage, uploaders = sorted(names(circle$words)), data = NULL, ...) {
  honest <- switch(
    stage,
    share = pack_table(circle$adverts),
    upload = inbox_bytes(list(sharers = sorted(names(circle$shared)), sealed = inbox_of(circle, name))),
    consent = raw(0),
    unmask = pack_table(consents_for(circle, name))
  )
  step <- list(federation = "trial", round = circle$round, stage = stage, group = 0, seconds = 1,
               data = openssl::base64_encode(if (is.null(data)) honest else data),
               uploaders = if (stage %in% c("consent", "unmask")) as.list(uploaders) else list())
  utils::modifyList(step, list(...))
}

inbox_of <- function(circle, name) {
  others <- setdiff(sorted(names(circle$shared)), name)
  sapply(others, function(other) circle$shared[[other]][[name]], simplify = FALSE)
}

# Of each other its signature, and the mark for this member.
consents_for <- function(circle, name) {
  others <- setdiff(sorted(names(circle$consents)), name)
  sapply(others, function(other) {
    place <- match(name, setdiff(sorted(names(circle$parts)), other)) - 1
    circle$consents[[other]][c(3:66, 66 + 16 * place + 1:16)]
  }, simplify = FALSE)
}

go <- function(circle, ..., names = base::names(circle$parts)) {
  for (stage in c(...)) {
    for (name in names) {
      answer <- part_answer(circle$parts[[name]], step_of(circle, name, stage))
      if (stage == "upload") {
        circle$words[[name]] <- answer$words
      } else {
        data <- openssl::base64_decode(answer$data)
        kept <- c(share = "shared", consent = "consents", unmask = "answers")[[stage]]
        circle[[kept]][[name]] <- if (stage == "share") unpack_table(data) else data
      }
    }
  }
  circle
}

ask <- function(circle, name, stage, ...) part_answer(circle$parts[[name]], step_of(circle, name, stage, ...))

# An advert in another's name, with keys of the coordinator's own making.
mallory <- function(circle, name, identity = openssl::ed25519_keygen()) {
  advert_bytes(member_advertise(secagg_member(name, identity, circle$parts$a$terms)))
}

test_that("six members of R go through a round, once each", {
  circle <- go(circle_of(), "share", "upload", "consent", "unmask")
  expect_identical(sort(circle$begun), letters[1:6])
  expect_length(circle$answers, 6)
  # What is uploaded tells nothing of what is hidden: of six equal vectors no two words are alike.
  expect_length(unique(lapply(circle$words, identity)), 6)
  expect_length(
    intersect(limbs_of(circle$words$a)[c(TRUE, FALSE)], limbs_of(word_bytes(c(1, -2, 3, 4, 5), 32))), 0
  )
})

test_that("the same question gets the same bytes, and another one is refused", {
  circle <- go(circle_of(), "share")
  first <- ask(circle, "a", "upload")
  expect_identical(ask(circle, "a", "upload", seconds = 99), first)
  expect_identical(circle$begun, "a")
  fewer <- inbox_bytes(
    list(sharers = c("a", "b", "c", "d", "e"), sealed = inbox_of(circle, "a")[c("b", "c", "d", "e")])
  )
  expect_refused(ask(circle, "a", "upload", data = fewer), "replayed")
  part_forget_words(circle$parts$a)
  expect_length(ask(circle, "a", "upload")$words, 0)
})

test_that("substituted keys are refused", {
  folder <- withr_folder()
  go(circle_of(folder = folder), "share")
  # The first round pinned everybody.
  later <- circle_of(folder = folder, round = 2)
  later$adverts$c <- mallory(later, "c")
  expect_refused(ask(later, "a", "share"), "substituted")
  # A member's own keys are known to it from the start.
  fresh <- circle_of()
  fresh$adverts$a <- mallory(fresh, "a")
  expect_refused(ask(fresh, "a", "share"), "substituted")
  # Right identity, other keys: the signature does not fit.
  forged <- circle_of()
  bytes <- forged$adverts$b
  bytes[5] <- xor(bytes[5], as.raw(1))
  forged$adverts$b <- bytes
  expect_refused(ask(forged, "a", "share"), "signature")
  # A name with two identities, an identity with two names, and a group without the member.
  double <- circle_of()
  double$adverts$f <- mallory(double, "f", double$parts$b$member$identity)
  expect_refused(ask(double, "a", "share"), "malformed")
  without <- circle_of()
  without$adverts$a <- NULL
  expect_refused(ask(without, "a", "share"), "missing")
})

test_that("a list that people gave keeps strangers out", {
  folder <- withr_folder()
  keys <- sapply(letters[1:6], function(name) {
    dir.create(file.path(folder, name), showWarnings = FALSE)
    public_bytes(signing_key(file.path(folder, name)))
  }, simplify = FALSE)
  circle <- go(circle_of(folder = folder, listed = keys), "share")
  expect_length(circle$shared, 6)
  keys$f <- NULL
  expect_refused(ask(circle_of(folder = folder, listed = keys), "a", "share"), "unknown")
  keys$f <- keys$e
  expect_refused(ask(circle_of(folder = folder, listed = keys), "a", "share"), "substituted")
  path <- file.path(folder, "peers.toml")
  writeLines(
    c(
      "# told by telephone", sprintf('a = "%s"', bytes_hex(keys$a)), "",
      sprintf('"b" = "%s"  # ward 2', bytes_hex(keys$b))
    ),
    path
  )
  expect_identical(told_peers(path), keys[c("a", "b")])
  writeLines("a = 5", path)
  expect_error(told_peers(path), class = "haina_config_error")
})

test_that("too small a group, too few sharers and too few uploaders are refused", {
  circle <- circle_of(fewest = 5)
  circle$adverts <- circle$adverts[1:4]
  expect_refused(ask(circle, "a", "share"), "weak")
  circle <- go(circle_of(), "share")
  two <- inbox_bytes(list(sharers = c("a", "b"), sealed = inbox_of(circle, "a")["b"]))
  expect_refused(ask(circle, "a", "upload", data = two), "too_few")
  go(circle, "upload")
  expect_refused(ask(circle, "a", "consent", uploaders = c("a", "b", "c")), "too_few")
  expect_refused(ask(circle, "a", "consent", uploaders = letters[2:6]), "missing")
  expect_refused(ask(circle, "a", "consent", uploaders = c(letters[1:5], "z")), "unknown")
  expect_refused(ask(circle, "a", "consent", uploaders = c(letters[1:5], "b")), "malformed")
})

test_that("a neighbour cannot be asked for as active and as dead", {
  circle <- go(circle_of(), "share", "upload", "consent")
  # Consented that all are there: an answer that takes f for gone would give its key beside its seed.
  expect_refused(ask(circle, "a", "unmask", uploaders = letters[1:5]), "changed")
  answer <- read_answer(openssl::base64_decode(ask(circle, "a", "unmask")$data))
  expect_identical(names(answer$seeds), letters[1:6])
  expect_length(answer$keys, 0)
  # Two different sets of uploaders in one round.
  again <- go(circle_of(), "share", "upload")
  ask(again, "a", "consent", uploaders = letters[1:6])
  expect_refused(ask(again, "a", "consent", uploaders = letters[1:5]), "changed")
  # Somebody who did not share cannot have uploaded.
  gone <- circle_of()
  go(gone, "share", names = letters[1:5])
  go(gone, "upload", names = letters[1:5])
  expect_refused(ask(gone, "a", "consent", uploaders = letters[1:6]), "changed")
})

test_that("a sum is opened once, for those that enough agreed on", {
  circle <- go(circle_of(), "share", "upload", "consent")
  lonely <- pack_table(consents_for(circle, "a")[c("b")])
  expect_refused(ask(circle, "a", "unmask", data = lonely), "too_few")
  forged <- lapply(consents_for(circle, "a"), function(word) rev(word))
  expect_refused(ask(circle, "a", "unmask", data = pack_table(forged)), "too_few")
  # Signatures alone, without marks, and consents of another round's view, count as what they are.
  other <- go(circle_of(), "share", "upload", "consent")
  expect_refused(ask(circle, "a", "unmask", data = pack_table(consents_for(other, "a"))), "too_few")
  signatures <- lapply(consents_for(circle, "a"), function(word) word[1:64])
  answer <- ask(circle, "a", "unmask", data = pack_table(signatures))
  expect_refused(ask(circle, "a", "unmask", data = pack_table(signatures[1:4])), "replayed")
  expect_identical(ask(circle, "a", "unmask", data = pack_table(signatures)), answer)
})

test_that("a drop-out's key is opened, and never both of its secrets", {
  circle <- go(circle_of(), "share")
  go(circle, "upload", "consent", "unmask", names = letters[1:4])
  for (data in circle$answers) {
    answer <- read_answer(data)
    expect_identical(names(answer$seeds), letters[1:4])
    expect_identical(names(answer$keys), c("e", "f"))
  }
})

test_that("steps out of turn, of another round, and damaged ones are refused", {
  circle <- circle_of()
  expect_refused(ask(circle, "a", "consent", uploaders = letters[1:6]), "order")
  expect_refused(ask(circle, "a", "unmask", uploaders = letters[1:6]), "order")
  empty <- inbox_bytes(list(sharers = letters[1:6], sealed = list()))
  expect_refused(ask(circle, "a", "upload", data = empty), "order")
  expect_false(part_fits(circle$parts$a, step_of(circle, "a", "share", round = 2)))
  step <- step_of(circle, "a", "share")
  step$data <- "not base64!"
  expect_refused(part_answer(circle$parts$a, step), "malformed")
  step$data <- openssl::base64_encode(as.raw(1:30))
  expect_refused(part_answer(circle$parts$a, step), "malformed")
  # Nothing was given away: the honest step still goes.
  expect_match(ask(circle, "a", "share")$data, "^[A-Za-z0-9+/=]+$")
  # Adverts of another round's terms do not fit this one's.
  old <- circle_of(round = 7)
  circle <- circle_of()
  circle$adverts$b <- old$adverts$b
  expect_refused(ask(circle, "a", "share"), "signature")
})

test_that("rubbish of one neighbour does not stop the others", {
  circle <- go(circle_of(), "share")
  circle$shared$b$a <- rev(circle$shared$b$a)
  circle$shared$c$a <- circle$shared$c$b
  go(circle, "upload", "consent", "unmask")
  expect_identical(names(read_answer(circle$answers$a)$seeds), c("a", "d", "e", "f"))
})

test_that("what must not leave does not: the words are not masked, and nothing is opened", {
  circle <- go(
    circle_of(begin = function(round) privacy_stop("the privacy budget of this site is spent")), "share"
  )
  expect_error(ask(circle, "a", "upload"), class = "haina_privacy_error")
})

test_that("a limit other than the promised one is refused", {
  policy <- list(mechanism = noise_mechanism("gaussian", 1), clip = 1)
  expect_identical(policy_limit(policy, list(limit = 1)), 1)
  expect_refused(policy_limit(policy, list(limit = 2)), "changed")
  expect_refused(policy_limit(policy, list()), "changed")
})

test_that("a ring that lacks two stretches cannot be cut in two", {
  circle <- Filter(function(circle) circle$title == "a ring of 24", secagg_vectors()$circles)[[1]]
  terms <- do.call(secagg_terms, circle$terms)
  setting <- do.call(secagg_setting, c(list(terms), circle$setting))
  cohort <- secagg_cohort(setting, lapply(unname(unpack_table(hex_bytes(circle$adverts))), read_advert))
  ring <- cohort_ring(cohort)
  half <- setting$degree / 2
  expect_silent(cohort_check_together(cohort, setdiff(ring, ring[1:2])))
  expect_refused(cohort_check_together(cohort, setdiff(ring, ring[c(1:half, 12 + 1:half)])), "apart")
})
