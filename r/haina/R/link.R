# The way to a coordinator: the calls of its HTTP door (docs/http-api.md) over curl, TLS 1.3, nobody trusted but the federation's own authority.
#
# A door is a list: `address`, `authority` (a PEM file) and, once this site has one, `identity` (a PEM file with key and certificate). Whatever fails
# is one of two errors: "haina_refusal" when the coordinator said no, "haina_unreachable" when nothing is known, so that the call may be made again.
# curl keeps connections open between calls with the same identity.

# An answer of JSON is at most this long; a welcome, the longest, holds at most 2 MB.
MAX_ANSWER <- 16 * 1024^2
# Refusals that pass by themselves.
PASSING <- c("unavailable", "too_many", "internal", "full")

# One call of JSON. `fields`: a named list, the body of a POST. `patience`: seconds that the answer may take beyond the usual.
call_json <- function(door, method, path, fields = NULL, patience = 0) {
  handle <- new_handle(door, patience, most = MAX_ANSWER)
  if (method == "POST") {
    body <- charToRaw(to_json(fields))
    curl::handle_setopt(handle, post = TRUE, postfieldsize = length(body), postfields = body)
    curl::handle_setheaders(handle, "Content-Type" = "application/json", "Expect" = "", "Accept-Encoding" = "identity")
  }
  answer_of(door, made(door, path, handle))
}

# The bytes of a model from `offset` on, appended to a file as they come, so that a killed process goes on where it was; `size` is how long the whole
# is. What comes with another status is a refusal, and no part of a model.
call_download <- function(door, path, file, offset, size) {
  handle <- new_handle(door, 0, most = size - offset)
  headers <- list("Accept-Encoding" = "identity")
  if (offset > 0) headers$Range <- sprintf("bytes=%.0f-", offset)
  curl::handle_setheaders(handle, .list = headers)
  target <- file(file, if (offset > 0) "ab" else "wb")
  on.exit(close(target))
  good <- NULL
  said <- raw()
  take <- function(bytes) {
    if (is.null(good)) good <<- curl::handle_data(handle)$status_code == if (offset > 0) 206L else 200L
    if (good) {
      writeBin(bytes, target)
    } else if (length(said) < MAX_ANSWER) {
      said <<- c(said, bytes)
    }
  }
  response <- tryCatch(curl::curl_fetch_stream(paste0(door$address, path), take, handle), error = identity)
  if (inherits(response, "error")) gone(door, response)
  if (!isTRUE(good)) {
    response$content <- said
    response$type <- curl::handle_data(handle)$type
    refused(door, response)
  }
  invisible()
}

# An upload: the manifest's JSON in a header, the body from `offset` on. One write for small bodies; curl streams large ones from memory.
call_upload <- function(door, path, manifest, body, offset, rate = 0) {
  handle <- new_handle(door, 240)
  rest <- if (offset > 0) body[-seq_len(offset)] else body
  curl::handle_setopt(handle, customrequest = "PUT", post = TRUE, postfieldsize_large = length(rest), postfields = rest)
  if (rate > 0) curl::handle_setopt(handle, max_send_speed_large = rate)
  curl::handle_setheaders(
    handle, "Content-Type" = "application/octet-stream", "Expect" = "", "Accept-Encoding" = "identity",
    "Haina-Manifest" = base64url(charToRaw(manifest)), "Haina-Offset" = sprintf("%.0f", offset)
  )
  answer_of(door, made(door, path, handle))
}

base64url <- function(bytes) sub("=+$", "", chartr("+/", "-_", openssl::base64_encode(bytes)))

new_handle <- function(door, patience, most = NULL) {
  # Not redirected, not proxied, not decompressed: a call is made once, to the address that was given. 2: HTTPS alone; 7: TLS 1.3 at least. Without
  # `capath = NULL` the authorities of the system would be trusted as well.
  handle <- curl::new_handle(
    followlocation = FALSE, noproxy = "*", useragent = "haina-r", http_version = 2L, sslversion = 7L,
    ssl_verifypeer = TRUE, ssl_verifyhost = 2L, cainfo = door$authority, capath = NULL, protocols = 2L, connecttimeout = 10L,
    low_speed_limit = 1L, low_speed_time = as.integer(60 + patience), tcp_nodelay = TRUE
  )
  # After a new certificate the connection of the old one is not used again.
  if (isTRUE(door$last)) curl::handle_setopt(handle, forbid_reuse = TRUE)
  if (!is.null(door$identity)) curl::handle_setopt(handle, sslcert = door$identity, sslkey = door$identity)
  if (!is.null(most)) curl::handle_setopt(handle, maxfilesize_large = most)
  handle
}

made <- function(door, path, handle) {
  response <- tryCatch(curl::curl_fetch_memory(paste0(door$address, path), handle), error = identity)
  if (inherits(response, "error")) gone(door, response)
  if (!response$status_code %in% c(200L, 206L)) refused(door, response)
  response
}

answer_of <- function(door, response) {
  if (length(response$content) > MAX_ANSWER) unreachable(paste(door$address, "does not answer like a coordinator"))
  text <- rawToChar(response$content)
  Encoding(text) <- "UTF-8"
  from_json(text, paste("the answer of", door$address))
}

gone <- function(door, error) {
  unreachable(sprintf("%s did not answer (%s)", door$address, conditionMessage(error)),
              remedy = "Is the coordinator running?")
}

refused <- function(door, response) {
  type <- if (is.null(response$type) || is.na(response$type)) "" else response$type
  if (startsWith(type, "application/problem+json")) {
    said <- answer_of(door, response)
    text <- function(key) if (is.character(said[[key]])) said[[key]] else ""
    retry <- if (is.numeric(said$retry)) said$retry else 0
    if (nzchar(text("code"))) refusal(text("code"), text("what"), text("allowed"), text("remedy"), retry)
  }
  unreachable(sprintf("%s does not answer like a coordinator (HTTP status %d)", door$address, response$status_code),
              remedy = "Something between here and there may have answered in its place")
}

round_path <- function(federation, round, what) sprintf("/v1/federations/%s/rounds/%.0f/%s", federation, round, what)
