# A viewer's way to a coordinator: the same door as a node's (link.R), read-only and impatient, because a page waits for the answer.
#
# A folder holds coordinator.json (where the coordinator is) and identity.pem (key, certificate, authority). A coordinator's own state folder serves
# too: its operator's identity lies in `operator/` below it.

# The largest text that is read from Prometheus, in bytes.
MOST_TEXT <- 64 * 1024^2

# A viewer of the coordinator that a folder names: the function that makes its calls, and the address. `timeout`: seconds for a whole call.
viewer <- function(folder, timeout = 8) {
  owner <- if (file.exists(file.path(folder, IDENTITY))) folder else file.path(folder, "operator")
  if (!file.exists(file.path(owner, IDENTITY))) {
    haina_stop(
      sprintf("%s holds no credentials", folder),
      allowed = "a folder with coordinator.json and identity.pem",
      remedy = paste(
        "Ask an operator for an invitation (haina invite NAME --role viewer)",
        "and join with it (haina join NAME.invite)"
      )
    )
  }
  own <- load_credentials(owner)
  authority <- tempfile("authority-", fileext = ".pem")
  writeLines(own$authority, authority)
  door <- list(
    address = address_of(file.path(folder, ADDRESS)), authority = authority,
    identity = normalizePath(file.path(owner, IDENTITY))
  )
  handle <- new_handle(door, 0, most = MAX_ANSWER)
  # Only the federation's authority is trusted: not the system's (capath). One handle keeps one connection.
  seconds <- as.integer(timeout)
  curl::handle_setopt(handle, capath = NULL, connecttimeout = min(3L, seconds), timeout = seconds)
  list(address = door$address, look_up = function(..., query = list()) {
    parts <- vapply(list(...), function(part) curl::curl_escape(as.character(part)), "")
    path <- paste(c("/v1", parts), collapse = "/")
    asked <- paste(names(query), unlist(query), sep = "=", collapse = "&")
    if (length(query)) path <- paste(path, asked, sep = "?")
    answer_of(door, made(door, path, handle))
  })
}

address_of <- function(path) {
  url <- tryCatch(jsonlite::fromJSON(path, simplifyVector = FALSE)$http, error = function(e) NULL)
  if (is.character(url) && grepl("^https://[^/@\\s]+/?$", url, perl = TRUE)) return(sub("/$", "", url))
  haina_stop(
    paste(path, "does not say where the coordinator is"), allowed = "\"http\": \"https://HOST:PORT\""
  )
}

# The text that an address answers with, read in pieces and no further than `MOST_TEXT`; `whom` is what to call it. No redirect is followed.
fetched <- function(url, whom) {
  pieces <- list()
  size <- 0
  take <- function(piece) {
    size <<- size + length(piece)
    if (size > MOST_TEXT) stop(sprintf("more than %d MiB came", MOST_TEXT %/% 1024^2))
    pieces[[length(pieces) + 1L]] <<- piece
    length(piece)
  }
  handle <- curl::new_handle(
    followlocation = FALSE, noproxy = "*", protocols = 3L, connecttimeout = 3L, timeout = 20L,
    useragent = "haina-r"
  )
  answer <- tryCatch(curl::curl_fetch_stream(url, take, handle = handle), error = function(e) {
    unreachable(sprintf("%s at %s did not answer (%s)", whom, url, plain(conditionMessage(e), 300L)))
  })
  text <- rawToChar(if (length(pieces)) unlist(pieces) else raw())
  Encoding(text) <- "UTF-8"
  # Prometheus says in JSON what is wrong with a query, with a status of its own.
  if (answer$status_code == 200L || grepl("^\\s*\\{", text)) return(text)
  haina_stop(sprintf("%s at %s answered with status %d", whom, url, as.integer(answer$status_code)))
}
