# DER: a request for a certificate (PKCS#10, RFC 2986), which the openssl package cannot write. Only the few forms that it needs (ITU-T X.690).

der <- function(tag, ...) {
  content <- c(...)
  size <- length(content)
  lengths <- if (size < 128L) as.raw(size)
    else if (size < 256L) as.raw(c(0x81L, size))
    else as.raw(c(0x82L, size %/% 256L, size %% 256L))
  c(as.raw(tag), lengths, content)
}

der_sequence <- function(...) der(0x30L, ...)
der_oid <- function(bytes) der(0x06L, as.raw(bytes))

OID_COMMON_NAME <- c(0x55, 0x04, 0x03)
OID_ECDSA_SHA256 <- c(0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02)

# A certificate signing request, PEM: it proves that the sender holds the key. The name is for people only; the coordinator ignores it.
certificate_request <- function(key, name) {
  subject <- der_sequence(der(0x31L, der_sequence(der_oid(OID_COMMON_NAME), der(0x0cL, charToRaw(enc2utf8(name))))))
  info <- der_sequence(
    der(0x02L, as.raw(0L)),
    subject,
    as.raw(openssl::write_der(key$pubkey)),
    der(0xa0L)
  )
  signature <- openssl::signature_create(info, openssl::sha256, key)
  request <- der_sequence(info, der_sequence(der_oid(OID_ECDSA_SHA256)), der(0x03L, as.raw(0L), as.raw(signature)))
  body <- openssl::base64_encode(request)
  lines <- substring(body, seq(1L, nchar(body), 64L), pmin(seq(64L, nchar(body) + 63L, 64L), nchar(body)))
  paste0("-----BEGIN CERTIFICATE REQUEST-----\n", paste(lines, collapse = "\n"), "\n-----END CERTIFICATE REQUEST-----\n")
}
