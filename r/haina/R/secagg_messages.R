# What members and the coordinator send each other in a secure sum, as bytes that can be read without trust.
#
# Every message begins with the version and its kind. Numbers are big-endian; a name is its length in one byte, then UTF-8; a table is its number of
# entries in four bytes, then for each a name, a length in two bytes and so many bytes, names in ascending order of their bytes. So a message has one
# form only. A length is checked against what is there before anything of that length is read.
#
# The trap: to be well formed is not to be true. What a message claims is checked where it is used.

secagg_version <- 1L
secagg_kinds <- c(advert = 1L, table = 2L, inbox = 3L, consent = 4L, answer = 5L)

# Bytes of a key, a signature, a share of a 32-byte secret, and the mark with which a neighbour agrees.
secagg_key <- 32L
secagg_signature <- 64L
secagg_share <- 36L
secagg_mark <- 16L

# The keys of one member for one round: a list of name, channel, mask, commitment, identity and signature.
advert_body <- function(advert) {
  c(name_bytes(advert$name), advert$channel, advert$mask, advert$commitment, advert$identity)
}

advert_bytes <- function(advert) c(message_head("advert"), advert_body(advert), advert$signature)

read_advert <- function(data) {
  reader <- message_reader(data, "advert")
  advert <- list(name = reader$name())
  for (field in c("channel", "mask", "commitment", "identity")) advert[[field]] <- reader$take(secagg_key)
  advert$signature <- reader$take(secagg_signature)
  reader$end()
  advert
}

# What a member is told once the others have shared: a list of `sharers` (names, ascending) and `sealed` (name -> raw).
read_inbox <- function(data) {
  reader <- message_reader(data, "inbox")
  inbox <- list(sharers = reader$names(), sealed = reader$table())
  reader$end()
  inbox
}

# One member's word on who shared and who uploaded: a signature for everyone, and a mark for each neighbour.
consent_bytes <- function(signature, marks) c(message_head("consent"), signature, marks)

# The shares that a member hands out: of each neighbour that shared, one of the two.
answer_bytes <- function(seeds, keys) c(message_head("answer"), table_bytes(seeds), table_bytes(keys))

# A table of names and bytes as one message, and back.
pack_table <- function(table) c(message_head("table"), table_bytes(table))

unpack_table <- function(data) {
  reader <- message_reader(data, "table")
  table <- reader$table()
  reader$end()
  table
}

message_head <- function(kind) as.raw(c(secagg_version, secagg_kinds[[kind]]))

table_bytes <- function(table) {
  entries <- lapply(sorted(names(table)), function(name) {
    c(name_bytes(name), big_bytes(length(table[[name]]), 2), table[[name]])
  })
  c(big_bytes(length(table), 4), unlist(entries))
}

# Names in ascending order of their bytes, whatever language R speaks.
sorted <- function(names) sort(as.character(names), method = "radix")

# Bytes from a stranger, read from left to right.
message_reader <- function(data, kind) {
  place <- new.env(parent = emptyenv())
  place$at <- 0
  left <- function() length(data) - place$at
  take <- function(size) {
    if (size > left()) {
      secagg_refuse("malformed", sprintf("a message ends %.0f bytes too early", size - left()))
    }
    place$at <- place$at + size
    data[place$at - size + seq_len(size)]
  }
  number <- function(size) big_value(take(size))
  name <- function() {
    bytes <- take(number(1))
    # R's texts hold no zero bytes.
    text <- if (any(bytes == as.raw(0))) "" else rawToChar(bytes)
    Encoding(text) <- "UTF-8"
    if (!nzchar(text) || !validUTF8(text)) {
      secagg_refuse(
        "malformed", paste("a name is", substr(bytes_hex(bytes), 1, 80)), "1 to 255 bytes of UTF-8"
      )
    }
    text
  }
  count <- function(smallest) {
    entries <- number(4)
    if (entries * smallest > left()) {
      secagg_refuse(
        "malformed", sprintf("a message of %d bytes announces %.0f entries", length(data), entries)
      )
    }
    entries
  }
  names <- function() {
    found <- vapply(seq_len(count(2)), function(entry) name(), "")
    check_ascending(found)
    found
  }
  table <- function(size = NULL) {
    entries <- lapply(seq_len(count(4)), function(entry) list(name = name(), value = take(number(2))))
    found <- vapply(entries, function(entry) entry$name, "")
    check_ascending(found)
    values <- lapply(entries, function(entry) entry$value)
    wrong <- if (!is.null(size)) which(lengths(values) != size)
    if (length(wrong)) {
      secagg_refuse(
        "malformed", sprintf("%s has %d bytes", shown(found[wrong[1]]), length(values[[wrong[1]]])),
        format(size)
      )
    }
    stats::setNames(values, found)
  }
  end <- function() if (left() > 0) secagg_refuse(
    "malformed", sprintf("a message has %.0f bytes too many", left())
  )
  head <- take(2)
  if (!identical(head, message_head(kind))) {
    secagg_refuse(
      "malformed", paste("a message begins with", bytes_hex(head)),
      paste0("version ", secagg_version, ", kind ", secagg_kinds[[kind]]),
      "Both ends need the same version of Haina"
    )
  }
  list(take = take, number = number, name = name, names = names, table = table, left = left, end = end)
}

check_ascending <- function(names) {
  wrong <- which(order(names, method = "radix") != seq_along(names) | duplicated(names))
  if (length(wrong)) {
    secagg_refuse("malformed", paste(shown(names[wrong[1]]), "is out of order"), "names in ascending order")
  }
}
