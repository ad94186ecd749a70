test_that("models come back to the bit", {
  params <- c(0.1, 1 / 3, 5e-324, -0, 1e300)
  bytes <- model_bytes(params)
  expect_identical(model_params(bytes)$params, params)
  expect_identical(model_params(bytes)$layout[[1]]$shape, 5)
  layout <- list(list(name = "w", dtype = "F32", shape = c(2, 2)), list(name = "b", dtype = "F64", shape = 1))
  expect_identical(model_params(model_bytes(c(1, 2, 3, 4, 0.1), layout))$params, c(1, 2, 3, 4, 0.1))
})

test_that("damaged bytes are refused before anything is read", {
  bytes <- model_bytes(1:3)
  claims <- bytes
  claims[4] <- as.raw(0xff)
  expect_error(model_params(raw(3)), "too few")
  expect_error(model_params(claims), "the header claims")
  expect_error(model_params(bytes[-length(bytes)]), "not as many")
  expect_error(model_params(c(bytes, raw(8))), "not as many")
  header <- function(text) c(as.raw(c(nchar(text), rep(0, 7))), charToRaw(text))
  expect_error(model_params(header("{\"a\":{\"dtype\":\"F64\",\"shape\":[1],\"data_offsets\":[8,16]}}")), "one after the other")
  expect_error(model_params(header("{\"a\":{\"dtype\":\"F64\",\"shape\":[-1],\"data_offsets\":[0,8]}}")), "unusable")
  expect_error(model_params(header("{\"a\":{\"dtype\":\"I8\",\"shape\":[1],\"data_offsets\":[0,1]}}")), "F32 and F64")
  expect_error(model_params(header("[1,2]")), "names no tensors")
})

test_that("vectors in files are float64 or float32", {
  path <- withr_file()
  write_vector(c(0.1, 2), path)
  expect_identical(read_vector(path), c(0.1, 2))
  write_vector(c(0.5, 2), path, "float32")
  expect_identical(read_vector(path, "float32"), c(0.5, 2))
  expect_error(vector_bytes(1e39, "float32"), "beyond the range")
  expect_error(vector_bytes(1, "int8"), "float32 and raw")
})
