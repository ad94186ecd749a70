# ChaCha20-Poly1305 (RFC 8439), which the openssl package lacks.
#
# It seals shares: 72 bytes a neighbour, so that a millisecond in plain R does not matter. A word of 32 bits is two integers of 16, because R's
# integers have no unsigned kind. All blocks of a message, and the four columns of a state, are worked on together.
#
# The trap: R's arithmetic does not take the same time for all numbers. Nothing here may be called where strangers can time it closely; a member
# calls it a few times a round, between network waits.

chacha_sigma <- charToRaw("expand 32-byte k")

#' Encrypt and authenticate.
#'
#' @param key raw, 32 bytes; with this nonce used for one message only.
#' @param nonce raw, 12 bytes.
#' @param message,context raw; the context is authenticated and not sent.
#' @return raw: the ciphertext, and 16 bytes more.
#' @noRd
chacha_seal <- function(key, nonce, message, context = raw(0)) {
  stream <- chacha_stream(key, nonce, 64 + length(message))
  sealed <- xor(message, utils::tail(stream, length(message)))
  c(sealed, poly1305(stream[1:32], chacha_authenticated(context, sealed)))
}

#' The inverse of `chacha_seal`: the message, or NULL where it was not sealed with this key, nonce and context.
#' @noRd
chacha_open <- function(key, nonce, sealed, context = raw(0)) {
  size <- length(sealed) - 16
  if (size < 0) return(NULL)
  body <- sealed[seq_len(size)]
  stream <- chacha_stream(key, nonce, 64 + size)
  tag <- poly1305(stream[1:32], chacha_authenticated(context, body))
  if (!same_bytes(tag, sealed[size + 1:16])) return(NULL)
  xor(body, utils::tail(stream, size))
}

#' The key stream from block 0 on: block 0 makes the key of Poly1305, and the message begins at byte 64 (RFC 8439, 2.6 and 2.8).
#' @noRd
chacha_stream <- function(key, nonce, size) {
  stopifnot(length(key) == 32, length(nonce) == 12)
  blocks <- ceiling(size / 64)
  halves <- readBin(c(chacha_sigma, key, raw(4), nonce), "integer", 32, 2, signed = FALSE, endian = "little")
  low <- matrix(halves[c(TRUE, FALSE)], 16, blocks)
  high <- matrix(halves[c(FALSE, TRUE)], 16, blocks)
  counter <- seq_len(blocks) - 1
  low[13, ] <- as.integer(counter %% 65536)
  high[13, ] <- as.integer(counter %/% 65536)
  # Four rows of the state, each 4 words of every block, one block after the other.
  rows <- lapply(1:4, function(row) {
    words <- 4 * row - 3:0
    list(low = as.vector(low[words, ]), high = as.vector(high[words, ]))
  })
  turn <- function(by) as.vector(outer((0:3 + by) %% 4 + 1, 4 * (seq_len(blocks) - 1), `+`))
  by <- list(turn(0), turn(1), turn(2), turn(3))
  turned <- function(row, order) list(low = row$low[order], high = row$high[order])
  for (round in 1:10) {
    rows <- chacha_quarters(rows)
    rows <- chacha_quarters(Map(turned, rows, by))
    rows <- Map(turned, rows, by[c(1, 4, 3, 2)])
  }
  sums <- lapply(1:4, function(row) {
    words <- 4 * row - 3:0
    word_add(rows[[row]], list(low = as.vector(low[words, ]), high = as.vector(high[words, ])))
  })
  out <- array(0L, c(2, 4, 4, blocks))
  for (row in 1:4) {
    out[1, , row, ] <- sums[[row]]$low
    out[2, , row, ] <- sums[[row]]$high
  }
  writeBin(as.vector(out), raw(), 2, endian = "little")[seq_len(size)]
}

# The quarter round, on all columns of all blocks.
chacha_quarters <- function(rows) {
  a <- rows[[1]]; b <- rows[[2]]; c <- rows[[3]]; d <- rows[[4]]
  a <- word_add(a, b); d <- word_turn(word_xor(d, a), 16)
  c <- word_add(c, d); b <- word_turn(word_xor(b, c), 12)
  a <- word_add(a, b); d <- word_turn(word_xor(d, a), 8)
  c <- word_add(c, d); b <- word_turn(word_xor(b, c), 7)
  list(a, b, c, d)
}

word_add <- function(x, y) {
  low <- x$low + y$low
  list(low = bitwAnd(low, 65535L), high = bitwAnd(x$high + y$high + low %/% 65536L, 65535L))
}

word_xor <- function(x, y) list(low = bitwXor(x$low, y$low), high = bitwXor(x$high, y$high))

# Rotated to the left by 7 to 16 bits.
word_turn <- function(x, bits) {
  if (bits == 16) return(list(low = x$high, high = x$low))
  up <- as.integer(2^bits)
  down <- as.integer(2^(16 - bits))
  turned <- function(this, other) bitwAnd(this * up, 65535L) + other %/% down
  # 65535 * 2^12 fits in an integer.
  list(low = turned(x$low, x$high), high = turned(x$high, x$low))
}

# Poly1305 (RFC 8439, 2.5) by big integers.
poly1305 <- function(key, message) {
  clamp <- as.raw(c(255, 255, 255, 15, 252, 255, 255, 15, 252, 255, 255, 15, 252, 255, 255, 15))
  r <- little_number(key[1:16] & clamp)
  prime <- openssl::bignum(2)^openssl::bignum(130) - openssl::bignum(5)
  total <- openssl::bignum(0)
  for (start in seq(1, by = 16, length.out = ceiling(length(message) / 16))) {
    block <- message[start:min(start + 15, length(message))]
    total <- ((total + little_number(c(block, as.raw(1)))) * r) %% prime
  }
  number_bytes(total + little_number(key[17:32]), 16)
}

# What the tag covers: context and ciphertext, each filled up to 16 bytes, and their lengths.
chacha_authenticated <- function(context, sealed) {
  fill <- function(bytes) raw(-length(bytes) %% 16)
  long <- function(bytes) c(rev(big_bytes(length(bytes), 8)))
  c(context, fill(context), sealed, fill(sealed), long(context), long(sealed))
}

# Bytes with the lowest first, as a big integer; and the lowest `size` bytes of one.
little_number <- function(bytes) openssl::bignum(rev(bytes))

number_bytes <- function(number, size) {
  bytes <- rev(as.raw(unclass(number)))
  c(bytes, raw(max(0, size - length(bytes))))[seq_len(size)]
}

# Whether two byte strings are the same; all bytes are looked at, wherever they differ.
same_bytes <- function(x, y) length(x) == length(y) && sum(as.integer(xor(x, y))) == 0

# A whole number below 2^53 as bytes, the highest first; and back.
big_bytes <- function(value, size) as.raw(value %/% 256^(size - seq_len(size)) %% 256)

big_value <- function(bytes) sum(as.integer(bytes) * 256^(length(bytes) - seq_along(bytes)))
