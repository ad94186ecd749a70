# Members of secure sums, one request a line on the standard input, one answer a line: for tests that put R and Python members into one sum.
#
# A request is JSON {do, name, ...}, bytes in it are hexadecimal. An answer is JSON {data, seconds}, or {code} of a refusal.

local({
  members <- new.env()
  take <- function(asked) {
    terms <- if (!is.null(asked$terms)) do.call(secagg_terms, asked$terms)
    member <- members[[asked$name]]
    switch(
      asked$do,
      advertise = {
        identity <- openssl::read_ed25519_key(hex_bytes(asked$identity))
        members[[asked$name]] <- secagg_member(asked$name, identity, terms)
        bytes_hex(advert_bytes(member_advertise(members[[asked$name]])))
      },
      share = {
        adverts <- lapply(unname(unpack_table(hex_bytes(asked$adverts))), read_advert)
        setting <- do.call(secagg_setting, c(list(terms), asked$setting))
        bytes_hex(pack_table(member_share(member, setting, adverts, function(name) NULL)))
      },
      # Long vectors come and go as files.
      upload = {
        words <- readBin(asked$words, "raw", file.size(asked$words))
        writeBin(member_upload(member, read_inbox(hex_bytes(asked$inbox)), words), asked$words)
        ""
      },
      consent = bytes_hex(member_consent(member, asked$uploaders)),
      unmask = bytes_hex(member_unmask(member, asked$uploaders, unpack_table(hex_bytes(asked$consents)))),
      stop("no such step")
    )
  }
  lines <- file("stdin", "r")
  while (length(line <- readLines(lines, 1))) {
    asked <- jsonlite::fromJSON(line, simplifyVector = FALSE)
    begun <- proc.time()[["elapsed"]]
    answer <- tryCatch(list(data = take(asked)), haina_secagg_error = function(error) list(code = error$code))
    answer$seconds <- proc.time()[["elapsed"]] - begun
    cat(jsonlite::toJSON(answer, auto_unbox = TRUE, digits = 6), "\n", sep = "")
  }
}, envir = new.env(parent = asNamespace("haina")))
