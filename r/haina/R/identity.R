# Who is who: this site's key (P-256), the certificate that speaks for it, and what the key signs. A folder is the same for R and for Python
# (`haina.node.enrolment`):
#
#     identity.pem        key, certificate, authority
#     authority.pem       the authority alone, for curl; made from identity.pem at each start
#     coordinator.json    where the coordinator is, and which invitation was used (the SHA-256 of its token)
#     pending-key.pem     between the first call and the answer to it

IDENTITY <- "identity.pem"
PENDING <- "pending-key.pem"
ADDRESS <- "coordinator.json"

new_key <- function() openssl::ec_keygen("P-256")

key_pem <- function(key) openssl::write_pem(key, path = NULL, password = NULL)

read_key <- function(pem) {
  found <- pem_blocks(pem, "PRIVATE KEY")
  key <- tryCatch(openssl::read_key(charToRaw(found[[1L]]), password = "", der = FALSE), error = identity)
  if (inherits(key, "error") || !inherits(key, "ecdsa")) {
    trust_stop("the private key cannot be read", "keys on the curve P-256, in PEM form")
  }
  key
}

pem_blocks <- function(pem, kind) {
  regmatches(pem, gregexpr(sprintf("-----BEGIN %s-----[^-]+-----END %s-----\\n?", kind, kind), pem))[[1L]]
}

# The certificates in PEM text, in order; other things in it, such as a key, are passed over.
read_certificates <- function(pem) {
  found <- pem_blocks(pem, "CERTIFICATE")
  if (!length(found)) trust_stop("there is no certificate", "PEM text")
  tryCatch(openssl::read_cert_bundle(charToRaw(paste(found, collapse = "\n"))), error = function(error) {
    trust_stop("the certificate cannot be read", remedy = "It is damaged, or not in PEM form")
  })
}

# SHA-256 of a certificate's DER bytes, in hexadecimal.
fingerprint <- function(certificate) sha256_hex(as.raw(openssl::write_der(certificate)))

sha256_hex <- function(bytes) {
  if (is.character(bytes)) bytes <- charToRaw(enc2utf8(bytes))
  paste(as.character(unclass(openssl::sha256(bytes))), collapse = "")
}

# A private key, the certificate that speaks for it and the authority that issued it. What does not hold together cannot be made.
credentials <- function(key, certificate, authority) {
  own <- read_certificates(certificate)[[1L]]
  root <- read_certificates(authority)[[1L]]
  if (!identical(as.raw(openssl::write_der(as.list(own)$pubkey)), as.raw(openssl::write_der(key$pubkey)))) {
    trust_stop("the key and the certificate do not belong together")
  }
  issued <- tryCatch(openssl::cert_verify(own, root), error = function(error) conditionMessage(error))
  # A certificate whose time is over was issued all the same; that is said where it matters.
  if (!isTRUE(issued) && !grepl("expired|not yet valid", issued)) {
    trust_stop("the certificate was not issued by the authority beside it")
  }
  uris <- as.list(own)$alt_names
  named <- regmatches(uris, regexec("haina:(node|viewer|operator):([A-Za-z0-9][A-Za-z0-9_-]{0,62})$", uris))
  named <- Filter(length, named)
  if (length(named) != 1L) {
    trust_stop("the certificate does not say whose it is", "one alternative name of the form haina:ROLE:NAME",
               "Enrol with an invitation of this coordinator")
  }
  begins <- as_time(as.list(own)$validity[[1L]])
  expires <- as_time(as.list(own)$validity[[2L]])
  list(key = key, name = named[[1L]][[3L]], role = named[[1L]][[2L]], expires = expires,
       renewal = begins + (expires - begins) * 2 / 3,
       pem = paste0(key_pem(key), openssl::write_pem(own), openssl::write_pem(root)),
       authority = openssl::write_pem(root))
}

# OpenSSL's text of a time ("Dec  1 04:03:00 2026 GMT") in seconds since 1970, whatever the language of this session.
as_time <- function(text) {
  parts <- strsplit(trimws(text), "[ :]+")[[1L]]
  month <- match(parts[[1L]], month.abb)
  as.double(ISOdatetime(as.integer(parts[[6L]]), month, as.integer(parts[[2L]]), as.integer(parts[[3L]]),
                        as.integer(parts[[4L]]), as.integer(parts[[5L]]), tz = "UTC"))
}

# Make this the folder's identity, in one step. The pending key is forgotten: it is in here now.
save_credentials <- function(own, folder) {
  write_whole(file.path(folder, IDENTITY), own$pem)
  unlink(file.path(folder, PENDING))
  own
}

load_credentials <- function(folder) {
  path <- file.path(folder, IDENTITY)
  text <- rawToChar(read_secret(path, "Take part with an invitation first: join(\"NAME.invite\", ...)"))
  certificates <- read_certificates(text)
  if (length(certificates) != 2L) {
    trust_stop(paste(path, "is damaged"), remedy = "Ask for a new invitation and join again")
  }
  credentials(read_key(text), openssl::write_pem(certificates[[1L]]), openssl::write_pem(certificates[[2L]]))
}

# The key for which a certificate is being asked, kept before the first call: killed between the coordinator's answer and `save_credentials`, this
# site asks again with the same key, and its one-time token can be honoured again for that key alone.
pending_key <- function(folder) {
  path <- file.path(folder, PENDING)
  if (!file.exists(path)) write_whole(path, key_pem(new_key()))
  read_key(rawToChar(read_secret(path)))
}

# ------------------------------------------------------------------------------------------------ signatures

SIGNED <- c("node", "federation", "round", "version", "sha256", "bytes", "codec", "length", "report")

# What a manifest's signature covers (`haina.wire.identity.signed_bytes`): a prefix, and every field but the signature in a fixed order.
signed_bytes <- function(manifest) {
  charToRaw(paste0("haina manifest 1\n", to_json(unname(manifest[SIGNED]))))
}

# The manifest with the signature of a key: base64 of ECDSA (P-256, SHA-256, DER).
signed <- function(manifest, key) {
  signature <- openssl::signature_create(signed_bytes(manifest), openssl::sha256, key)
  manifest$signature <- openssl::base64_encode(as.raw(signature))
  manifest
}
