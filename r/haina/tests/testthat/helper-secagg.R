# What the Python side says, from `tests/support/secagg_vectors.py`.
secagg_vectors <- function() {
  jsonlite::fromJSON(
    testthat::test_path("vectors", "secagg.json"), simplifyVector = FALSE, bigint_as_char = TRUE
  )
}

# Random bytes that are always the same: the stream of a key.
bytes_from <- function(hex) {
  stream <- noise_stream(hex_bytes(hex))
  function(size) stream_bytes(stream, size)
}

doubles_from <- function(hex) readBin(hex_bytes(hex), "double", nchar(hex) / 16, endian = "little")

# An error of a secure sum with this code.
expect_refused <- function(call, code) {
  error <- testthat::expect_error(call, class = "haina_secagg_error")
  testthat::expect_identical(error$code, code)
  invisible(error)
}

# What only the coordinator writes and reads.
inbox_bytes <- function(inbox) {
  names <- unlist(lapply(inbox$sharers, name_bytes))
  c(message_head("inbox"), big_bytes(length(inbox$sharers), 4), names, table_bytes(inbox$sealed))
}

read_answer <- function(data) {
  reader <- message_reader(data, "answer")
  answer <- list(seeds = reader$table(secagg_share), keys = reader$table(secagg_share))
  reader$end()
  both <- intersect(names(answer$seeds), names(answer$keys))
  if (length(both)) {
    secagg_refuse("malformed", paste("an answer has both shares of", shown(both[1])), "one of the two")
  }
  answer
}

# Words as signed whole numbers; those of 64 bits to the 53 bits of a double.
word_values <- function(bytes, word) {
  limbs <- matrix(limbs_of(bytes), word / 16)
  top <- limbs[word / 16, ]
  limbs[word / 16, ] <- top - 65536L * (top >= 32768L)
  colSums(limbs * 65536^(seq_len(word / 16) - 1))
}
