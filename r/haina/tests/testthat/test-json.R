test_that("numbers are the shortest texts that read back as the same double, as Python writes them", {
  expect_identical(
    vapply(c(0.1, 1e-5, 1e16, 5e-324, 1e22, 123456789.5, 2^-44, 1.7976931348623157e308, -0.0001, 100), to_json, ""),
    c("0.1", "1e-05", "1e+16", "5e-324", "1e+22", "123456789.5", "5.684341886080802e-14", "1.7976931348623157e+308", "-0.0001", "100")
  )
  expect_identical(to_json(c(3, -0, NA, Inf, NaN)), "[3,0,null,null,null]")
})

test_that("every double reads back as itself", {
  doubles <- readBin(as.raw(sample(0:255, 8 * 500, TRUE)), "double", 500)
  doubles <- doubles[is.finite(doubles)]
  texts <- vapply(doubles, to_json, "")
  back <- vapply(texts, function(text) as.double(jsonlite::fromJSON(paste0("[", text, "]"))), 0, USE.NAMES = FALSE)
  expect_identical(back, doubles)
})

test_that("objects have sorted keys, and texts are ASCII", {
  expect_identical(to_json(stats::setNames(list(1, list("x", TRUE, NULL), empty_object()), c("b", "a", "\u00e9"))), "{\"a\":[\"x\",true,null],\"b\":1,\"\\u00e9\":{}}")
  expect_identical(to_json("a\"\\\n\t\u0001\u007f\U0001f600"), "\"a\\\"\\\\\\n\\t\\u0001\\u007f\\ud83d\\ude00\"")
  expect_identical(to_json(list()), "[]")
})

test_that("integers beyond 2^53 keep their digits", {
  expect_identical(from_json("{\"seed\":9223372036854775807,\"round\":3}", "it"), list(seed = "9223372036854775807", round = 3L))
  expect_error(from_json("{", "the answer"), class = "haina_unreachable")
})
