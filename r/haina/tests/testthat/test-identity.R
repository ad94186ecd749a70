test_that("times are read in every language", {
  expect_identical(as_time("Dec  1 04:03:00 2026 GMT"), 1796097780)
  expect_identical(iso_time("2026-12-01T04:03:00+00:00"), 1796097780)
  expect_identical(iso_time("2026-12-01T05:33:00.25+01:30"), 1796097780)
  expect_identical(iso_time("2026-12-01T04:03:00Z"), 1796097780)
  expect_identical(iso_time("2026-12-01T04:03:00"), NA_real_)
})

test_that("a key survives its file, and the pending one stays until it is used", {
  folder <- withr_file()
  key <- pending_key(folder)
  expect_identical(key_pem(pending_key(folder)), key_pem(key))
  expect_identical(key_pem(read_key(key_pem(key))), key_pem(key))
  expect_error(read_key("nothing"), class = "haina_trust_error")
})

test_that("a signature covers every field", {
  key <- new_key()
  manifest <- list(node = "a", federation = "f", round = 3, version = 2, sha256 = "00", bytes = 8, codec = "raw", length = 1, report = list(examples = 3))
  expect_identical(
    rawToChar(signed_bytes(manifest)), "haina manifest 1\n[\"a\",\"f\",3,2,\"00\",8,\"raw\",1,{\"examples\":3}]"
  )
  signature <- openssl::base64_decode(signed(manifest, key)$signature)
  expect_true(openssl::signature_verify(signed_bytes(manifest), signature, openssl::sha256, key$pubkey))
  manifest$round <- 4
  expect_error(openssl::signature_verify(signed_bytes(manifest), signature, openssl::sha256, key$pubkey))
})

test_that("the folder of a site lies beside its invitation", {
  expect_identical(folder_of("/x/hospital-a.invite"), "/x/haina-node-hospital-a")
  expect_identical(folder_of("/x/hospital-a.invite", "/y"), "/y")
  expect_identical(folder_of(tempdir()), tempdir())
})
