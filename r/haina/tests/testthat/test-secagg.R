# Bytes against published vectors, and against what the Python members say.

hex <- function(text) hex_bytes(gsub("[^0-9a-f]", "", text))

test_that("ChaCha20-Poly1305 is that of RFC 8439", {
  # 2.8.2
  key <- as.raw(0x80:0x9f)
  nonce <- hex("070000004041424344454647")
  context <- hex("50515253c0c1c2c3c4c5c6c7")
  text <- charToRaw(paste0(
    "Ladies and Gentlemen of the class of '99: If I could offer you ",
    "only one tip for the future, sunscreen would be it."
  ))
  sealed <- chacha_seal(key, nonce, text, context)
  expect_identical(bytes_hex(sealed[1:16]), "d31a8d34648e60db7b86afbc53ef7ec2")
  expect_identical(bytes_hex(utils::tail(sealed, 16)), "1ae10b594f09e26a7e902ecbd0600691")
  expect_identical(chacha_open(key, nonce, sealed, context), text)
  # 2.5.2
  tag <- poly1305(
    hex("85d6be7857556d337f4452fe42d506a80103808afb0db2fd4abff6af4149f51b"),
    charToRaw("Cryptographic Forum Research Group")
  )
  expect_identical(bytes_hex(tag), "a8061dc1305136c6c22b8baf0c0127a9")
  # A.1, test vector 1: the first block of a key and a nonce of zeros.
  expect_identical(bytes_hex(chacha_stream(raw(32), raw(12), 16)), "76b8e0ada0f13d90405d6ae55386bd28")
  # A.3, test vectors 7 and 9: sums that come to the prime and beyond.
  one <- c(as.raw(1), raw(15))
  expect_identical(poly1305(
    c(one, raw(16)),
    hex("fffffffffffffffffffffffffffffffff0ffffffffffffffffffffffffffffff11000000000000000000000000000000")
  ),
                   c(as.raw(5), raw(15)))
  expect_identical(
    bytes_hex(poly1305(c(as.raw(2), raw(31)), hex("fdffffffffffffffffffffffffffffff"))),
    "faffffffffffffffffffffffffffffff"
  )
})

test_that("what was changed is not opened", {
  key <- as.raw(1:32)
  sealed <- chacha_seal(key, raw(12), as.raw(1:72), as.raw(7))
  for (place in c(1, 40, 72, 73, 88)) {
    changed <- sealed
    changed[place] <- xor(changed[place], as.raw(4))
    expect_null(chacha_open(key, raw(12), changed, as.raw(7)))
  }
  expect_null(chacha_open(key, raw(12), sealed, as.raw(8)))
  expect_null(chacha_open(key, raw(12), sealed[1:15], as.raw(7)))
  expect_null(chacha_open(rev(key), raw(12), sealed, as.raw(7)))
  expect_identical(chacha_open(key, raw(12), sealed, as.raw(7)), as.raw(1:72))
})

test_that("HKDF is that of RFC 5869", {
  out <- hkdf(as.raw(rep(0x0b, 22)), as.raw(0:12), as.raw(0xf0:0xf9), 42)
  expect_identical(
    bytes_hex(out), "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
  )
  out <- hkdf(as.raw(0x00:0x4f), as.raw(0x60:0xaf), as.raw(0xb0:0xff), 82)
  expect_identical(bytes_hex(utils::tail(out, 18)), substring(paste0(
    "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c",
    "59045a99cac7827271cb41c65e590e09da3275600c2f09b8367793a9aca3db71",
    "cc30c58179ec3e87c14c01d5c1f3434f1d87"
  ), 129))
  out <- hkdf(as.raw(rep(0x0b, 22)), raw(0), raw(0), 42)
  expect_identical(
    bytes_hex(out), "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"
  )
})

test_that("points of small order are refused", {
  own <- openssl::read_x25519_key(as.raw(1:32))
  prime <- c(as.raw(0xed), as.raw(rep(0xff, 30)), as.raw(0x7f))
  above <- prime
  above[1] <- as.raw(0xee)
  order_eight <- c(
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"
  )
  for (key in c(list(raw(32), c(as.raw(1), raw(31)), prime, above), lapply(order_eight, hex))) {
    expect_true(is_small(key))
    expect_refused(exchange(own, key, "x"), "malformed")
  }
  expect_false(is_small(public_bytes(own)))
})

test_that("a product in the field of 2^31 - 1 is right where a double would round it", {
  p <- shamir_prime
  expect_equal(shamir_times(p - 1, p - 1), 1)
  expect_equal(shamir_times(2^30, 2^30), 2^29)
  expect_equal(shamir_times(c(3, p - 1), c(5, 2)), c(15, p - 2))
  x <- shamir_random(1, 100, openssl::rand_bytes)[1, ]
  inverse <- Reduce(function(out, bit) {
    out <- shamir_times(out, out)
    if (bit == "1") shamir_times(out, x) else out
  }, strsplit("1111111111111111111111111111101", "")[[1]], rep(1, 100))
  expect_equal(shamir_times(x, inverse), rep(1, 100))
})

test_that("shares of a secret give it back, by exactly as many as it takes", {
  limbs <- shamir_to_limbs(openssl::rand_bytes(64))
  points <- 1:7
  shares <- shamir_split(limbs, 4, points, openssl::rand_bytes)
  joined <- function(rows) {
    # sum_j y_j prod_{i != j} x_i / (x_i - x_j), in whole numbers that are small here.
    total <- 0
    for (j in rows) {
      others <- setdiff(rows, j)
      above <- prod(points[others])
      below <- prod(points[others] - points[j]) %% shamir_prime
      weight <- as.double(as.character(openssl::bignum_mod_inv(whole(below), whole(shamir_prime))))
      total <- (
        total + shamir_times(shamir_times(above %% shamir_prime, weight), shares[j, ])
      ) %% shamir_prime
    }
    total
  }
  expect_equal(joined(c(1, 3, 6, 7)), limbs)
  expect_equal(joined(c(2, 3, 4, 5)), limbs)
  expect_false(isTRUE(all.equal(joined(c(1, 3, 6)), limbs)))
  expect_true(shamir_readable(shamir_bytes(shares[2, ])))
  expect_false(shamir_readable(as.raw(rep(255, 4))))
  expect_false(shamir_readable(raw(6)))
})

test_that("masks come off again, and wrap as words do", {
  keys <- lapply(1:4, function(k) openssl::rand_bytes(32))
  for (word in c(32, 64)) {
    words <- openssl::rand_bytes(1000 * word / 8)
    masked <- add_masks(words, keys[1:2], keys[3:4], word)
    expect_false(identical(masked, words))
    expect_identical(add_masks(masked, keys[3:4], keys[1:2], word), words)
    values <- c(0, 1, -1, 2^31 - 1, 1 - 2^31)
    expect_identical(word_values(word_bytes(values, word), word), values)
  }
  # The carry goes through all limbs of a word, and not into the next.
  expect_identical(limb_bytes(c(65536, 65535, 65535, 65535, 5, 0, 0, 0), 64), c(raw(8), as.raw(5), raw(7)))
  # Pieces of a long vector are those of the whole.
  expect_identical(aes_stream(keys[[1]], 2, 4096, 100), aes_stream(keys[[1]], 2, 0, 4196)[-seq_len(4096)])
})

test_that("a task's digest is that of the Python side, and every field of a task is in it", {
  vectors <- secagg_vectors()
  for (task in vectors$tasks) {
    expect_identical(task_digest(from_json(task$json, "a task")), task$agreed)
  }
  expect_identical(sort(names(task_fields)), unlist(vectors$task_fields))
})

test_that("a plan is that of the Python side, for every size of a group", {
  vectors <- secagg_vectors()
  for (one in vectors$plans) {
    found <- tryCatch(
      unlist(secagg_plan(one$members, one$corrupt, one$dropout)), haina_privacy_error = function(error) NULL
    )
    expect_equal(unname(found), unlist(one$plan), info = paste(one[1:3], collapse = " "))
  }
  for (one in vectors$rare) {
    expect_equal(
      c(safe_threshold(one[[1]], one[[2]], one[[3]]), secagg_together(one[[1]], one[[2]], one[[3]])),
      c(one[[4]], one[[5]])
    )
  }
})

test_that("every message of a member is that of a Python member with the same secrets", {
  for (circle in secagg_vectors()$circles) {
    terms <- do.call(secagg_terms, circle$terms)
    setting <- do.call(secagg_setting, c(list(terms), circle$setting))
    expect_identical(bytes_hex(terms_context(terms)), circle$terms_context)
    expect_identical(bytes_hex(setting_context(setting)), circle$setting_context)
    adverts <- lapply(unname(unpack_table(hex_bytes(circle$adverts))), read_advert)
    uploaders <- unlist(circle$uploaders)
    expect_identical(cohort_ring(secagg_cohort(setting, adverts)), unlist(circle$ring))
    for (said in circle$members) {
      identity <- openssl::read_ed25519_key(hex_bytes(said$identity))
      member <- secagg_member(said$name, identity, terms, bytes_from(said$entropy))
      expect_identical(bytes_hex(advert_bytes(member_advertise(member))), said$advert)
      shares <- member_share(member, setting, rev(adverts), function(name) NULL)
      expect_identical(bytes_hex(pack_table(shares)), said$shares)
      inbox <- read_inbox(hex_bytes(said$inbox))
      expect_identical(bytes_hex(inbox_bytes(inbox)), said$inbox)
      expect_identical(bytes_hex(member_upload(member, inbox, hex_bytes(said$words))), said$masked)
      expect_identical(bytes_hex(member_consent(member, rev(uploaders))), said$consent)
      # Asked again for the same, it signs the same.
      expect_identical(bytes_hex(member_consent(member, uploaders)), said$consent)
      answer <- member_unmask(member, uploaders, unpack_table(hex_bytes(said$consents)))
      expect_identical(bytes_hex(answer), said$answer)
      expect_length(
        read_answer(answer)$seeds, length(intersect(uploaders, c(said$name, unlist(said$neighbours))))
      )
    }
  }
})

test_that("bytes that Python does not read, R does not read either", {
  read <- list(advert = read_advert, inbox = read_inbox, answer = read_answer, table = unpack_table)
  cases <- secagg_vectors()$damaged
  for (case in cases) {
    good <- tryCatch(
      {
        read[[case$kind]](hex_bytes(case$data))
        TRUE
      },
      haina_secagg_error = function(error) {
        expect_identical(error$code, "malformed")
        FALSE
      }
    )
    expect_identical(good, case$good, info = paste(case$kind, case$data))
  }
  expect_true(any(vapply(cases, function(case) case$good, NA)))
  expect_refused(unpack_table(hex("010200000001")), "malformed")
  # A count that would need more memory than there is.
  expect_refused(unpack_table(hex("0102ffffffff")), "malformed")
})
