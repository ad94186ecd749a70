# Stream: the random bits of noise and rounding, as the AES-256-CTR key stream of one 32-byte key.
#
# A cipher and not R's generator: whoever sees much of what a Mersenne twister made computes the rest, and takes the noise off.
#
# The trap is to use a key twice: two streams of one key are the same stream, and the same noise under two releases is the difference of what they
# cover. A stream is made for one purpose, from fresh entropy, and thrown away.

#' A stream of random bits.
#'
#' @param key raw, 32 secret bytes that no other stream has.
#' @return an environment; `stream_bytes` and `stream_limbs` move on in it.
#' @noRd
noise_stream <- function(key = openssl::rand_bytes(32)) {
  if (length(key) != 32) privacy_stop(paste("a key of random bits has", length(key), "bytes"), "32 bytes")
  stream <- new.env(parent = emptyenv())
  stream$key <- key
  stream$at <- 0
  stream
}

# The next bytes.
stream_bytes <- function(stream, size) {
  skip <- stream$at %% 16
  out <- aes_stream(stream$key, 0, stream$at - skip, skip + size)
  stream$at <- stream$at + size
  if (skip > 0) out[-seq_len(skip)] else out
}

# The next words of 64 bits, as a matrix of four rows of 16 bits each, the lowest first.
stream_limbs <- function(stream, count) matrix(limbs_of(stream_bytes(stream, 8 * count)), 4)

# The next uniform numbers in [0, 1), of 53 bits.
stream_uniform <- function(stream, count) {
  limbs <- stream_limbs(stream, count)
  (limbs[4, ] * 2^37 + limbs[3, ] * 2^21 + limbs[2, ] * 2^5 + limbs[1, ] %/% 2048L) * 2^-53
}
