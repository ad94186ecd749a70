# One member of a secure sum: the side that has something to hide.
#
# SecAgg+ (Bell et al. 2020) with the double masks of Bonawitz et al. 2017, "Practical Secure Aggregation for Privacy-Preserving Machine Learning".
# What a member uploads is its vector plus a mask of its own plus, for each neighbour, a mask that the neighbour takes away. The seed of the first and
# the key of the second lie in shares with the neighbours. Who uploads has its seed opened; who shared and did not upload, its key; nobody both.
#
#   advertise   keys for this round, signed
#   share       of the whole group's adverts, the member finds its neighbours and seals a share of both secrets for each
#   upload      told who shared, it masks with those of its neighbours who did
#   consent     told who uploaded, it signs both lists
#   unmask      shown that enough signed the same, it hands out one share of each neighbour that shared, once, and forgets all
#
# Bytes are those of the Python members (`haina.privacy.secagg.members`), which say why nothing is opened that should not be.
#
# The trap: secrets live in memory and die with the process, on purpose. A member that starts again has dropped out of the round.

secagg_steps <- c("advertise", "share", "upload", "consent", "unmask")

#' One member, in one group of one round.
#'
#' @param name as the coordinator and the other members know it.
#' @param identity Ed25519 key that signs for this member; its public key is what the others have pinned.
#' @param terms of the round (`secagg_terms`).
#' @param entropy function(n): n random bytes. 96 are taken now, the rest when sharing.
#' @param fewest the fewest members in whose sum this one agrees to be, whatever the setting says; >= 2.
#' @return an environment, for the five `member_` functions.
#' @noRd
secagg_member <- function(name, identity, terms, entropy = openssl::rand_bytes, fewest = secagg_fewest) {
  member <- new.env(parent = emptyenv())
  member$name <- name
  member$identity <- identity
  member$terms <- terms[terms_fields]
  member$entropy <- entropy
  member$fewest <- fewest
  member$done <- 0L
  member$channel_key <- openssl::read_x25519_key(entropy(secagg_key))
  member$mask_key <- openssl::read_x25519_key(entropy(secagg_key))
  member$seed <- entropy(secagg_key)
  member$channels <- member$masks <- member$held <- list()
  member
}

#' The keys of this round, signed: an advert.
#' @noRd
member_advertise <- function(member) {
  member_turn(member, "advertise")
  context <- terms_context(member$terms)
  advert <- list(
    name = member$name, channel = public_bytes(member$channel_key), mask = public_bytes(member$mask_key),
    commitment = seed_commitment(member$seed, member$name, context), identity = public_bytes(member$identity)
  )
  advert$signature <- as.raw(openssl::ed25519_sign(advert_message(advert, context), member$identity))
  member$advert <- advert
  member$done <- member$done + 1L
  advert
}

#' Shares of this member's secrets, sealed for each neighbour.
#'
#' @param setting of the group; on the terms that were advertised.
#' @param adverts list, of the whole group, this member's own among them.
#' @param known function(name): the pinned identity key of a member, or NULL where it was never seen; then the advertised one stands, and should be
#'   pinned by the caller once this call has returned.
#' @return a list of neighbour -> 88 bytes. Refuses with "order", "replayed", "changed" (other terms), "malformed", "weak", "missing", "substituted"
#'   or "signature"; nothing is changed then.
#' @noRd
member_share <- function(member, setting, adverts, known) {
  member_turn(member, "share")
  check_terms(setting, member$terms)
  cohort <- secagg_cohort(setting, adverts)
  check_strength(setting, length(adverts), member$fewest)
  check_identities(cohort, member$advert, known)
  neighbours <- cohort_neighbours(cohort, member$name)
  for (name in neighbours) check_advert(cohort$adverts[[name]], member$terms)
  channels <- masks <- list()
  for (name in neighbours) {
    advert <- cohort$adverts[[name]]
    channels[[name]] <- member_channel(member$channel_key, member$name, name, advert$channel, cohort$digest)
    masks[[name]] <- pair_mask(member$mask_key, member$name, name, advert$mask, cohort$digest)
  }
  masks[[member$name]] <- self_mask(member$seed, member$name, cohort$digest)
  shares <- member_split(member, cohort, neighbours)
  member$cohort <- cohort
  member$neighbours <- neighbours
  member$channels <- channels
  member$masks <- masks
  member$held <- shares[member$name]
  member$done <- member$done + 1L
  seal <- function(name) seal_share(
    channels[[name]], shares[[name]], share_context(member$name, name, cohort$digest)
  )
  stats::setNames(lapply(neighbours, seal), neighbours)
}

#' Mask a vector.
#'
#' @param inbox who shared, and what neighbours sealed for this member. Shares that cannot be read are passed over: refusing would let one member that
#'   sends rubbish put out all its neighbours.
#' @param words raw: little-endian words, as many as the terms say.
#' @return raw: what may be uploaded, indistinguishable from random bytes. Refuses with "order", "replayed", "malformed", "unknown", "missing" or
#'   "too_few".
#' @noRd
member_upload <- function(member, inbox, words) {
  member_turn(member, "upload")
  check_words(words, member$terms)
  cohort <- member$cohort
  sharers <- cohort_check_names(cohort, inbox$sharers, "are said to have shared")
  near <- intersect(member$neighbours, sharers)
  check_sharers(cohort, member$name, sharers, near, inbox$sealed)
  for (name in sorted(intersect(near, names(inbox$sealed)))) member_keep(member, name, inbox$sealed[[name]])
  # Both members of a pair must know who adds: the one whose name comes later.
  mine <- match(member$name, cohort$names)
  adds <- match(near, cohort$names) < mine
  plus <- member$masks[c(near[adds], member$name)]
  masked <- add_masks(words, plus, member$masks[near[!adds]], member$terms$word)
  member$sharers <- sharers
  member$masks <- list()
  member$done <- member$done + 1L
  masked
}

#' Sign who shared and who uploaded: a consent, as bytes. Asked again for the same, it signs the same.
#'
#' Refuses with "order", "replayed", "unknown", "malformed", "missing", "too_few", "apart", or "changed": another set was signed before, or someone in
#' it did not share.
#' @noRd
member_consent <- function(member, uploaders) {
  again <- member$done == match("unmask", secagg_steps) - 1L
  if (!again) member_turn(member, "consent")
  names <- cohort_check_names(member$cohort, uploaders, "are said to have uploaded")
  view <- cohort_view(member$cohort, member$sharers, names)
  if (again) {
    check_same_view(member, view)
  } else {
    check_uploaders(member$cohort, member$name, member$sharers, names)
    member$view <- view
    member$done <- member$done + 1L
  }
  marks <- unlist(lapply(member$neighbours, function(name) consent_mark(member$channels[[name]]$mark, view)))
  consent_bytes(as.raw(openssl::ed25519_sign(consent_message(view), member$identity)), marks)
}

#' Hand out what opens the sum: once, and then forget all secrets.
#'
#' @param uploaders as consented to.
#' @param consents list of name -> a signature (64 bytes), from a neighbour with its mark (80). Those that do not fit are not counted.
#' @return an answer, as bytes. Refuses with "order", "replayed", "changed", or "too_few" fit; it may be asked again after the last.
#' @noRd
member_unmask <- function(member, uploaders, consents) {
  member_turn(member, "unmask")
  names <- cohort_check_names(member$cohort, uploaders, "are said to have uploaded")
  check_same_view(member, cohort_view(member$cohort, member$sharers, names))
  others <- setdiff(names, member$name)
  agreed <- member_agreed(member, consents[intersect(names(consents), others)])
  least <- member$cohort$setting$least
  if (agreed < least) {
    secagg_refuse(
      "too_few", sprintf("%d members agree on who uploaded", agreed), paste(least, "or more"),
      "Others were told something else, or are gone; nothing is opened"
    )
  }
  there <- names(member$held) %in% names
  first <- seq_len(secagg_share)
  answer <- answer_bytes(
    lapply(member$held[there], function(share) share[first]),
    lapply(member$held[!there], function(share) share[-first])
  )
  member$held <- member$channels <- list()
  member$done <- member$done + 1L
  answer
}

# Refuse a step out of turn.
member_turn <- function(member, step) {
  turn <- match(step, secagg_steps) - 1L
  if (turn > member$done) {
    secagg_refuse("order", paste(step, "is asked for"), paste(secagg_steps[member$done + 1L], "comes next"))
  }
  if (turn < member$done) {
    secagg_refuse(
      "replayed", sprintf("%s is asked for a second time in round %.0f", step, member$terms$round),
      "once a round",
      "A member that answered twice could be made to show its vector"
    )
  }
}

# Both secrets in shares: for each neighbour and for this member. Then they are forgotten.
member_split <- function(member, cohort, neighbours) {
  holders <- c(member$name, neighbours)
  secrets <- shamir_to_limbs(c(member$seed, private_bytes(member$mask_key)))
  shares <- shamir_split(secrets, cohort$setting$threshold, match(holders, cohort$names), member$entropy)
  member$seed <- member$mask_key <- member$channel_key <- NULL
  stats::setNames(lapply(seq_along(holders), function(row) shamir_bytes(shares[row, ])), holders)
}

# Keep what a neighbour sealed, if it can be read and could be a share.
member_keep <- function(member, name, sealed) {
  shares <- open_share(
    member$channels[[name]], sealed, share_context(name, member$name, member$cohort$digest)
  )
  if (length(shares) == 2 * secagg_share && shamir_readable(shares)) member$held[[name]] <- shares
}

# How many agree, this member included; no more are counted than are needed. Marks first, as signatures cost more.
member_agreed <- function(member, consents) {
  least <- member$cohort$setting$least
  signature <- seq_len(secagg_signature)
  marked <- vapply(names(consents), function(name) {
    channel <- member$channels[[name]]
    !is.null(channel) && same_bytes(consent_mark(channel$check, member$view), consents[[name]][-signature])
  }, NA)
  agreed <- 1L + sum(marked)
  message <- consent_message(member$view)
  for (name in names(consents)[!marked]) {
    if (agreed >= least) break
    word <- consents[[name]]
    fits <- length(word) >= secagg_signature && is_signed(
      member$cohort$adverts[[name]]$identity, word[signature], message
    )
    agreed <- agreed + fits
  }
  agreed
}

# The 32 bytes of a public and of a private key of X25519 or Ed25519.
public_bytes <- function(key) as.raw(as.list(as.list(key)$pubkey)$data)
private_bytes <- function(key) as.raw(as.list(key)$data)
