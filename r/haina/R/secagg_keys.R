# Keys, labels and signatures of a secure sum: everything here is bound to what it is for, by a label that names it.
#
# What two members share is X25519 (RFC 7748), stretched by HKDF-SHA256 (RFC 5869). The salt is the digest of the cohort: every advert of the group
# and its setting. So a key that was made in one round, group or cohort is unlike that of any other, whoever replays an advert. The label says which
# key it is and names both members in order, so a member that advertises another's public key gets other secrets.
#
# Two members' channel secret gives four keys: one in each direction to seal shares with (ChaCha20-Poly1305), one in each for consents. A sealing key
# seals one message, so its nonce is zero.

# The four keys of two members, seen from `me`: seal, open, mark, check.
member_channel <- function(own, me, other, public, cohort) {
  pair <- sorted(c(me, other))
  out <- hkdf(exchange(own, public, other), cohort, key_label("channel", pair), 4 * secagg_key)
  keys <- split(out, rep(1:4, each = secagg_key))
  if (identical(me, pair[2])) keys <- keys[c(2, 1, 4, 3)]
  stats::setNames(keys, c("seal", "open", "mark", "check"))
}

# The key of the mask between two members: the same from either's mask key.
pair_mask <- function(own, me, other, public, cohort) {
  hkdf(exchange(own, public, other), cohort, key_label("pair", sorted(c(me, other))), secagg_key)
}

# The key of a member's own mask.
self_mask <- function(seed, name, cohort) hkdf(seed, cohort, key_label("self", name), secagg_key)

# What a member advertises of its seed: 32 random bytes, so the digest does not give it away.
seed_commitment <- function(seed, name, terms) digest(key_label("commitment", name), terms, seed)

# What signatures sign, and what sealed shares are bound to beside their key.
advert_message <- function(advert, terms) c(key_label("advert"), terms, advert_body(advert))
consent_message <- function(view) c(key_label("consent"), view)
share_context <- function(sender, recipient, cohort) c(key_label("shares", c(sender, recipient)), cohort)

seal_share <- function(channel, shares, context) chacha_seal(channel$seal, raw(12), shares, context)
open_share <- function(channel, sealed, context) chacha_open(channel$open, raw(12), sealed, context)

# The code that says to another member: I agree to this; and whether the other did.
consent_mark <- function(key, view) hmac(key, view)[seq_len(secagg_mark)]

#' Refuse an advert that no correct member sends: "signature", or "malformed" where a key is a point of small order.
#' @noRd
check_advert <- function(advert, terms) {
  if (!is_signed(advert$identity, advert$signature, advert_message(advert, terms_context(terms)))) {
    secagg_refuse(
      "signature",
      sprintf("the signature of '%s' does not fit its keys of round %.0f", advert$name, terms$round),
      remedy = "Someone changed them on the way, or they are of another round; the round goes on without it"
    )
  }
  for (key in list(advert$channel, advert$mask)) if (is_small(key)) refuse_useless(advert$name)
}

# Whether an identity signed a message (Ed25519, RFC 8032).
is_signed <- function(identity, signature, message) {
  tryCatch(
    isTRUE(openssl::ed25519_verify(message, signature, openssl::read_ed25519_pubkey(identity))),
    error = function(error) FALSE
  )
}

exchange <- function(own, public, other) {
  secret <- tryCatch(
    openssl::x25519_diffie_hellman(own, openssl::read_x25519_pubkey(public)),
    error = function(error) refuse_useless(other)
  )
  as.raw(secret)
}

refuse_useless <- function(name) {
  secagg_refuse(
    "malformed", sprintf("a key of '%s' gives a secret that everyone knows", name), "X25519 public keys"
  )
}

# Whether a public key is a point of small order, by its u modulo 2^255 - 19: with one of them every secret is zero.
is_small <- function(key) {
  key[32] <- key[32] & as.raw(127)
  prime <- openssl::bignum(2)^openssl::bignum(255) - openssl::bignum(19)
  u <- as.character(little_number(key) %% prime)
  u %in% c(
    "0", "1", as.character(prime - openssl::bignum(1)),
    "325606250916557431795983626356110631294008115727848805560023387167927233504",
    "39382357235489614581723060781553021112529911719440698176882885853963445705823"
  )
}

#' HKDF with SHA-256 (RFC 5869).
#'
#' @param secret,salt,info raw.
#' @param size bytes wanted, at most 255 * 32.
#' @noRd
hkdf <- function(secret, salt, info, size) {
  key <- hmac(if (length(salt)) salt else raw(32), secret)
  out <- block <- raw(0)
  for (turn in seq_len(ceiling(size / 32))) {
    block <- hmac(key, c(block, info, as.raw(turn)))
    out <- c(out, block)
  }
  out[seq_len(size)]
}

hmac <- function(key, message) as.raw(openssl::sha256(message, key = key))

key_label <- function(what, names = character()) {
  c(charToRaw(paste0(secagg_domain, what)), as.raw(0), unlist(lapply(names, name_bytes)))
}
