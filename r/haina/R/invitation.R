# The `.invite` file, and what becomes of it: an identity, once. Later starts need neither the token nor the file.
#
# The trap: the fingerprint is compared with the authority in the same file, which finds damage but no forger. A forger is found by a person who
# compares the fingerprint with the coordinator's own, over another channel.

AGAIN <- "Ask the operator for a new one (haina invite)"

# The invitation in a file, checked; `now` in seconds since 1970 tells whether it is still good. No message repeats the token.
read_invitation <- function(path, now) {
  text <- tryCatch(rawToChar(read_whole(path, MAX_SECRET)), error = function(error) {
    trust_stop(paste("the invitation", path, "cannot be read"), remedy = AGAIN)
  })
  said <- tryCatch(jsonlite::fromJSON(text, simplifyVector = FALSE), error = function(error) NULL)
  version <- if (is.list(said)) said$haina_invitation
  if (!is.numeric(version) || version < 1) {
    trust_stop(paste(path, "is not an invitation"), remedy = paste("Name the .invite file that you were given.", AGAIN))
  }
  if (version > 1) {
    trust_stop(sprintf("%s is an invitation of format %g", path, version), "formats up to 1",
               "It comes from a newer Haina; install that version here")
  }
  fields <- c("name", "role", "http", "authority", "fingerprint", "token", "expires")
  bad <- fields[!vapply(said[fields], function(x) is.character(x) && length(x) == 1L && nzchar(x), NA)]
  until <- if (length(bad)) NA else iso_time(said$expires)
  if (length(bad) || is.na(until)) {
    trust_stop(sprintf("the invitation %s is damaged (in: %s)", path, paste(c(bad, "expires")[1L], collapse = ", ")),
               remedy = AGAIN)
  }
  if (!grepl("^https://[^/@?#]+$", said$http) || !grepl(NAME, said$name)) {
    trust_stop(sprintf("the invitation %s is damaged (in: http)", path), remedy = AGAIN)
  }
  if (!identical(fingerprint(read_certificates(said$authority)[[1L]]), said$fingerprint)) {
    trust_stop(sprintf("the authority in %s does not have the fingerprint beside it", path),
               remedy = paste("The file was damaged or changed on its way: do not use it.", AGAIN))
  }
  if (until <= now) trust_stop(sprintf("the invitation %s expired at %s", path, said$expires), remedy = AGAIN)
  said[c("name", "role", "federation", "http", "grpc", "authority", "token", "expires")]
}

# Names of federations, nodes and groups: they become parts of addresses and paths.
NAME <- "^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$"

# ISO 8601 with an offset, in seconds since 1970; NA for anything else.
iso_time <- function(text) {
  parts <- regmatches(text, regexec("^(\\d{4}-\\d\\d-\\d\\d)[T ](\\d\\d:\\d\\d:\\d\\d)(\\.\\d+)?(Z|[+-]\\d\\d:?\\d\\d)$", text))[[1L]]
  if (!length(parts)) return(NA_real_)
  time <- as.double(as.POSIXct(paste(parts[[2L]], parts[[3L]]), tz = "UTC", format = "%Y-%m-%d %H:%M:%S"))
  if (parts[[5L]] == "Z") return(time)
  offset <- as.integer(c(substr(parts[[5L]], 2L, 3L), substring(parts[[5L]], nchar(parts[[5L]]) - 1L)))
  time - (if (startsWith(parts[[5L]], "-")) -1 else 1) * (offset[[1L]] * 3600 + offset[[2L]] * 60)
}

# The folder of a site: the one that is named, or `haina-node-NAME` beside `NAME.invite`, so that it is found when the invitation is gone.
folder_of <- function(where, folder = NULL) {
  if (!is.null(folder)) return(folder)
  if (dir.exists(where)) return(where)
  file.path(dirname(where), paste0("haina-node-", sub("\\.[^.]*$", "", basename(where))))
}

# The invitation with which an identity has yet to be made; NULL where the folder's own is to be used.
unused_invitation <- function(where, folder, now) {
  whole <- file.exists(file.path(folder, IDENTITY))
  if (dir.exists(where) || (whole && !file.exists(where))) {
    if (!whole) trust_stop(paste(folder, "holds no identity"), remedy = "Join with an invitation first")
    return(NULL)
  }
  if (whole) {
    # One that was used may have expired since.
    known <- read_invitation(where, 0)
    name <- load_credentials(folder)$name
    if (known$name != name) {
      haina_stop(sprintf("%s belongs to %s, and the invitation is for %s", folder, name, known$name),
                 remedy = "Name another folder (folder = )")
    }
    if (identical(sha256_hex(known$token), load_address(folder)$invitation)) return(NULL)
  }
  read_invitation(where, now)
}

# Make the folder's identity with an invitation. One that was stopped before the answer was written down asks again, with the same key.
use_invitation <- function(invited, folder) {
  key <- pending_key(folder)
  authority <- tempfile("authority", fileext = ".pem")
  on.exit(unlink(authority))
  writeBin(charToRaw(invited$authority), authority)
  door <- list(address = invited$http, authority = authority)
  answer <- call_json(door, "POST", "/v1/enrol", list(token = invited$token, csr = certificate_request(key, invited$name)))
  own <- credentials(key, answer$certificate, answer$authority)
  # The identity last: with it, the folder is whole.
  said <- list(http = invited$http, grpc = invited$grpc, invitation = sha256_hex(invited$token))
  write_whole(file.path(folder, ADDRESS), to_json(said))
  save_credentials(own, folder)
}

load_address <- function(folder) {
  path <- file.path(folder, ADDRESS)
  said <- tryCatch(jsonlite::fromJSON(rawToChar(read_whole(path, MAX_SECRET)), simplifyVector = FALSE),
                   error = function(error) NULL)
  if (!is.character(said$http)) {
    trust_stop(paste(path, "does not say where the coordinator is"),
               remedy = "Ask the operator for a new invitation and join again")
  }
  said
}
