# Masks: AES-256 key streams, added to and taken from a vector of words.
#
# The words of a mask are the key stream of AES-256 in counter mode (NIST SP 800-38A) from counter block 2 on, read as little-endian words of 32 or 64
# bits. R has no unsigned integers, and its smallest signed one is its missing value. So vectors are added in pieces of 16 bits, each in an integer or
# a double of its own, and carried once at the end.
#
# The trap: a key makes one mask only. Every key comes out of `secagg_keys.R`, where its label names the pair and the cohort.

# Bytes that are worked on together.
mask_chunk <- 2^22

#' Add the masks of some keys to a vector and take those of others from it, modulo 2^32 or 2^64.
#'
#' @param words raw: little-endian words, as they are sent.
#' @param plus,minus lists of keys of 32 bytes.
#' @param word bits of a word.
#' @return raw, as long.
#' @noRd
add_masks <- function(words, plus, minus, word) {
  pieces <- lapply(seq(0, max(0, length(words) - 1), by = mask_chunk), function(start) {
    end <- min(start + mask_chunk, length(words))
    part <- as.double(limbs_of(words[seq_len(end - start) + start]))
    for (key in plus) part <- part + limbs_of(aes_stream(key, 2, start, end - start))
    for (key in minus) part <- part - limbs_of(aes_stream(key, 2, start, end - start))
    limb_bytes(part, word)
  })
  if (length(pieces) == 1) pieces[[1]] else do.call(c, pieces)
}

#' Bytes of the key stream of AES-256-CTR.
#'
#' @param key raw, 32 bytes.
#' @param first counter of its first block.
#' @param start bytes to pass over, a multiple of 16.
#' @param size bytes wanted.
#' @noRd
aes_stream <- function(key, first, start, size) {
  out <- openssl::aes_ctr_encrypt(raw(size), key, big_bytes(first + start / 16, 16))
  attributes(out) <- NULL
  out
}

# Bytes as integers of 16 bits, and back, with what overflows carried to the next limb of the same word, and out of the word.
limbs_of <- function(bytes) readBin(bytes, "integer", length(bytes) / 2, 2, signed = FALSE, endian = "little")

limb_bytes <- function(limbs, word) {
  per <- word / 16
  carry <- 0
  for (limb in seq_len(per)) {
    places <- seq(limb, length(limbs), by = per)
    whole <- limbs[places] + carry
    carry <- floor(whole / 65536)
    limbs[places] <- whole - carry * 65536
  }
  writeBin(as.integer(limbs), raw(), 2, endian = "little")
}

#' Whole numbers as words in two's complement: little-endian bytes.
#'
#' @param integers numeric, whole numbers of size below 2^(word - 1), and below 2^53.
#' @noRd
word_bytes <- function(integers, word) {
  if (word == 32) return(writeBin(as.integer(integers), raw(), 4, endian = "little"))
  limbs <- matrix(0, 4, length(integers))
  limbs[1, ] <- integers
  limb_bytes(as.vector(limbs), 64)
}
