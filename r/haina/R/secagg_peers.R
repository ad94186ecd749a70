# Peers: the key with which this site signs its part in secure sums, and the keys of the other sites (`haina.node.peers`; the files are the same).
#
# A coordinator passes keys on between sites, and could put its own in their place. So each site has a key for ever, and each holds on to the keys of
# the others: those that people gave it, or else the first that it saw of each name. Another key under a known name is refused until a person says it
# is right.
#
#     signing.pem     this site's key (Ed25519, RFC 8032); made when first needed
#     peers.json      name -> public key, 64 hexadecimal digits, of those that were seen
#     peers.toml      written by people: NAME = "64 hexadecimal digits", a line each; nobody else is summed with then
#
# The trap is the first sight: who is not told keys believes the first one.

signing_key <- function(folder) {
  path <- file.path(folder, "signing.pem")
  if (!file.exists(path)) {
    write_whole(path, openssl::write_pem(openssl::ed25519_keygen(), path = NULL, password = NULL))
  }
  text <- rawToChar(read_secret(path))
  key <- tryCatch(openssl::read_key(text, password = ""), error = identity)
  if (inherits(key, "error")) {
    trust_stop(
      paste(path, "is no key"),
      remedy = "Restore the file; with a new one the other sites must be told the new key"
    )
  }
  if (!inherits(key, "ed25519")) trust_stop(paste(path, "is a key of another kind"), allowed = "Ed25519")
  key
}

#' The keys of other sites.
#' @return an environment: `listed` (keys that people gave, or NULL), `seen`.
#' @noRd
secagg_peers <- function(folder, listed = told_peers(file.path(folder, "peers.toml"))) {
  peers <- new.env(parent = emptyenv())
  peers$path <- file.path(folder, "peers.json")
  peers$listed <- listed
  peers$seen <- read_pins(peers$path)
  peers
}

# The keys in a file that people wrote; NULL where there is none.
told_peers <- function(path) {
  if (!file.exists(path)) return(NULL)
  lines <- trimws(sub("#.*$", "", readLines(path, warn = FALSE)))
  found <- regmatches(
    lines, regexec('^"?([A-Za-z0-9][A-Za-z0-9_-]{0,62})"?[ \t]*=[ \t]*"([0-9a-f]{64})"$', lines)
  )
  wrong <- which(nzchar(lines) & lengths(found) == 0)
  if (length(wrong)) {
    config_stop(
      paste(path, "has a line that is no key:", shown(lines[wrong[1]])),
      allowed = 'NAME = "64 hexadecimal digits", as the site saw at its start'
    )
  }
  found <- found[lengths(found) > 0]
  stats::setNames(lapply(found, function(one) hex_bytes(one[3])), vapply(found, function(one) one[2], ""))
}

# The key of a site; NULL for one that was never seen.
known_peer <- function(peers, name) if (is.null(peers$listed)) peers$seen[[name]] else peers$listed[[name]]

# Refuse company that was not asked for ("unknown").
admit_peers <- function(peers, adverts, own) {
  if (is.null(peers$listed)) return(invisible())
  names <- vapply(adverts, function(advert) advert$name, "")
  strangers <- setdiff(names, c(own, names(peers$listed)))
  if (length(strangers)) {
    secagg_refuse(
      "unknown", paste(shown(strangers[1]), "is in the group, and not in the list of peers"),
      "sites of the file peers.toml in this site's folder",
      "If it belongs to the federation, write its key into the file"
    )
  }
}

# Hold on to the keys of those who were never seen, durably. To be called when a group was found to be right.
meet_peers <- function(peers, adverts) {
  fresh <- Filter(function(advert) is.null(peers$seen[[advert$name]]), adverts)
  if (!length(fresh)) return(invisible())
  for (advert in fresh) peers$seen[[advert$name]] <- advert$identity
  durable(write_whole(peers$path, to_json(lapply(peers$seen, bytes_hex))))
  invisible()
}

read_pins <- function(path) {
  if (!file.exists(path)) return(list())
  said <- tryCatch(
    jsonlite::fromJSON(rawToChar(read_whole(path, 16 * 1024^2)), simplifyVector = FALSE),
    error = function(error) NULL
  )
  if (!is.list(said) || (length(said) && is.null(names(said))) || !all(vapply(said, is_sha256, NA))) {
    # To begin anew would believe whoever comes first.
    trust_stop(
      paste(path, "does not hold the keys of the other sites"),
      remedy = "Restore the file, or give their keys in peers.toml"
    )
  }
  lapply(said, hex_bytes)
}
