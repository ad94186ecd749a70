"""Keys, labels and signatures: everything here is bound to what it is for, by a label that names it.

What two members share is X25519 (RFC 7748), stretched by HKDF-SHA256 (RFC 5869). The salt is the digest of the cohort: every advert of the group and
its setting (federation, round, model, group). So a key that was made in one round, group or cohort is unlike that of any other, whoever replays an
advert. The label says which key it is and names both members in order, so a member that advertises another's public key gets other secrets.

Two members' channel secret gives four keys: one in each direction to seal shares with (ChaCha20-Poly1305, RFC 8439), one in each for consents. A
sealing key seals one message, so its nonce is zero.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from hashlib import sha256

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from haina.privacy.secagg.messages import KEY, MARK, Advert
from haina.privacy.secagg.refusal import SecAggError
from haina.privacy.secagg.setting import DOMAIN, Terms, name_bytes

_NONCE = bytes(12)
#: The points of small order by their u, modulo 2^255 - 19: with one of them as public key every secret is zero.
_FIELD = (1 << 255) - 19
_SMALL = {
    0,
    1,
    _FIELD - 1,
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
}


@dataclass(frozen=True)
class Channel:
    """What two members share, seen from one of them. The keys are secret."""

    seal_key: bytes = field(repr=False)
    open_key: bytes = field(repr=False)
    mark_key: bytes = field(repr=False)
    check_key: bytes = field(repr=False)

    def seal(self, shares: bytes, context: bytes) -> bytes:
        """Shares as only the other member can read them. To be called once."""
        return ChaCha20Poly1305(self.seal_key).encrypt(_NONCE, shares, context)

    def open(self, sealed: bytes, context: bytes) -> bytes | None:
        """What the other member sealed; None if it did not."""
        try:
            return ChaCha20Poly1305(self.open_key).decrypt(_NONCE, sealed, context)
        except InvalidTag:
            return None

    def mark(self, view: bytes) -> bytes:
        """The code that says to the other member: I agree to this."""
        return hmac.digest(self.mark_key, view, "sha256")[:MARK]

    def marked(self, view: bytes, mark: bytes) -> bool:
        """Whether the other member agreed."""
        return hmac.compare_digest(hmac.digest(self.check_key, view, "sha256")[:MARK], mark)


def channel(own: X25519PrivateKey, me: str, other: str, public: bytes, cohort: bytes) -> Channel:
    """The four keys of two members, from the channel key of one and the advertised one of the other.

    Raises:
        SecAggError: "malformed": the other's key is a point of small order.
    """
    out = _derive(exchange(own, public, other), cohort, _label(b"channel", *sorted((me, other))), 4 * KEY)
    keys = [out[place : place + KEY] for place in range(0, 4 * KEY, KEY)]
    if me > other:
        keys = [keys[1], keys[0], keys[3], keys[2]]
    return Channel(*keys)


def pair_mask(own: X25519PrivateKey, me: str, other: str, public: bytes, cohort: bytes) -> bytes:
    """The key of the mask between two members: the same from either's mask key.

    Raises:
        SecAggError: "malformed": the other's key is a point of small order.
    """
    return _derive(exchange(own, public, other), cohort, _label(b"pair", *sorted((me, other))))


def self_mask(seed: bytes, name: str, cohort: bytes) -> bytes:
    """The key of a member's own mask."""
    return _derive(seed, cohort, _label(b"self", name))


def commitment(seed: bytes, name: str, terms: bytes) -> bytes:
    """What a member advertises of its seed. The seed is 32 random bytes, so the digest does not give it away."""
    return sha256(_label(b"commitment", name) + terms + seed).digest()


def advert_message(advert: Advert, terms: bytes) -> bytes:
    """What an advert's signature signs."""
    return _label(b"advert") + terms + advert.body()


def share_context(sender: str, recipient: str, cohort: bytes) -> bytes:
    """What sealed shares are bound to beside their key (associated data)."""
    return _label(b"shares", sender, recipient) + cohort


def consent_message(view: bytes) -> bytes:
    """What a consent's signature signs."""
    return _label(b"consent") + view


def check_advert(advert: Advert, terms: Terms) -> None:
    """Refuse an advert that no correct member sends. The coordinator does before it passes one on; members check those of their neighbours.

    Raises:
        SecAggError: "signature", or "malformed": a key is a point of small order.
    """
    if not signed(advert.identity, advert.signature, advert_message(advert, terms.context())):
        raise SecAggError(
            "signature",
            f"the signature of {advert.name!r} does not fit its keys of round {terms.round}",
            remedy="Someone changed them on the way, or they are of another round; the round must go on without it",
        )
    for key in (advert.channel, advert.mask):
        if int.from_bytes(key, "little") % (1 << 255) % _FIELD in _SMALL:
            raise _useless(advert.name)


def signed(identity: bytes, signature: bytes, message: bytes) -> bool:
    """Whether an identity signed a message."""
    try:
        Ed25519PublicKey.from_public_bytes(identity).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def exchange(own: X25519PrivateKey, public: bytes, other: str) -> bytes:
    """The secret that a private key and another's public key give.

    Raises:
        SecAggError: "malformed".
    """
    try:
        return own.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:
        raise _useless(other) from None


def _useless(name: str) -> SecAggError:
    return SecAggError(
        "malformed", f"a key of {name!r} gives a secret that everyone knows", allowed="X25519 public keys"
    )


def _derive(secret: bytes, cohort: bytes, label: bytes, size: int = KEY) -> bytes:
    return HKDF(hashes.SHA256(), size, cohort, label).derive(secret)


def _label(what: bytes, *names: str) -> bytes:
    return DOMAIN + what + b"\0" + b"".join(map(name_bytes, names))
