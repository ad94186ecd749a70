"""Sums under homomorphic encryption, for a few silos that want no protocol of several steps: encrypt, let the server add, decrypt. The extra "ckks".

CKKS (Cheon, Kim, Kim and Song 2017, "Homomorphic Encryption for Arithmetic of Approximate Numbers") as TenSEAL has it: 4,096 numbers to a
ciphertext of ring degree 8192 and moduli of 60 + 40 + 60 bits, 128 bits of security by the standard's tables. The silos share one secret key, which
they give each other where the server cannot read; the server has no key at all and adds what it cannot open.

What it is worth: less than secure aggregation, and it costs more. **Any silo that works together with the server reads every update**, and so does
whoever steals the key of one; nothing is hidden from the silos but by the server's good will, since a "sum" of one update opens like any other.
For a million numbers it measured 0.69 s of a client's processor and 58 MB, where masks cost 0.02 s and 4 MB. In return nobody has to be there for the
sum to be opened, and there is one message up and one down. It is for up to 20 silos bound by contract.

The trap: a decrypted number carries its error, and the errors give away the key to whoever has the ciphertext (Li and Micciancio 2021, "On the
Security of Homomorphic Encryption on Approximate Numbers"). The server has it, and will see the model. So `Silo.open` rounds to 2^-16 of the bound,
a thousand errors wide, and hands out nothing finer; that stops the attack as published and is not a proof.

TenSEAL draws its own randomness, so that this file is the one place of the room where it does not come in as an argument.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf
from struct import Struct
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from haina.errors import PrivacyError

#: Ring degree, and bits of the moduli: one for the numbers, one for the scale, one for key switching.
_DEGREE, _MODULI, _SCALE = 8192, (60, 40, 60), 2.0**40
#: Polynomials, moduli and scale of a ciphertext that nothing was done to, and of sums of such.
_FORM = (2, len(_MODULI) - 1, _SCALE)
#: Numbers in a ciphertext.
SLOTS = _DEGREE // 2
#: Silos that may share a key.
MOST = 20
#: A ciphertext is 235,140 bytes, a secret context 181,489; nothing longer is read.
_CIPHERTEXT, _SECRET = 1 << 18, 1 << 18
#: What is given out is a multiple of this part of the bound.
_STEP = 2.0**-16
#: Magic, numbers, ciphertexts; after it the length of each ciphertext.
_HEAD, _LENGTH = Struct("<8sQI"), Struct("<I")
_MAGIC = b"hnckks01"


@dataclass(frozen=True)
class Setting:
    """What all who take part agree on.

    Args:
        dimension: d, numbers in a vector.
        bound: largest size of a number in a silo's vector, > 0.
        silos: who share the key, 2 to 20.

    Raises:
        PrivacyError: a number is outside its range.
    """

    dimension: int
    bound: float
    silos: int

    def __post_init__(self) -> None:
        if self.dimension < 1 or not 0 < self.bound < inf:
            raise PrivacyError(
                f"{self.dimension} numbers up to {self.bound} are to be encrypted",
                allowed="one number at least, and a finite bound above 0",
            )
        if not 2 <= self.silos <= MOST:
            raise PrivacyError(
                f"{self.silos} silos are to share one key",
                allowed=f"2 to {MOST}",
                remedy="Take secure aggregation, which has no shared key",
            )

    @property
    def ciphertexts(self) -> int:
        """How many a vector takes."""
        return -(-self.dimension // SLOTS)

    def sizes(self) -> Iterator[int]:
        """Numbers in each ciphertext."""
        return (min(SLOTS, self.dimension - start) for start in range(0, self.dimension, SLOTS))


class Silo:
    """One who holds the key: encrypts its vector, and opens the sum.

    Args:
        setting: what was agreed on.
        secret: bytes of the key, from `Silo.secret` of the silo that made it.

    Raises:
        PrivacyError: the bytes are not such a key, or TenSEAL is not installed.
    """

    def __init__(self, setting: Setting, secret: bytes) -> None:
        self.setting = setting
        self._context = _read_secret(secret)

    @classmethod
    def found(cls, setting: Setting) -> Self:
        """The first silo, with a new key. Raises PrivacyError where TenSEAL is not installed."""
        return cls(setting, _context().serialize(**_KEYS, save_secret_key=True))

    def secret(self) -> bytes:
        """The key, for the other silos and nobody else: send it where the server cannot read it, and never log it."""
        return bytes(self._context.serialize(**_KEYS, save_secret_key=True))

    def seal(self, values: ArrayLike) -> bytes:
        """Encrypt a vector.

        Args:
            values: `[d]` numbers of size at most the bound. A weight travels as one number more.

        Returns:
            About 57 bytes for a number.

        Raises:
            PrivacyError: another length, or a number that is not finite or too large.
        """
        setting, numbers = self.setting, np.asarray(values, np.float64)
        if numbers.shape != (setting.dimension,):
            raise PrivacyError(f"a vector has shape {numbers.shape}", allowed=f"({setting.dimension},)")
        within = np.abs(numbers) <= setting.bound
        if not within.all():
            first = int(np.argmin(within))
            raise PrivacyError(
                f"coordinate {first} of a vector is {numbers[first]:g}",
                allowed=f"finite numbers of size at most {setting.bound:g}",
                remedy="Clip it before, or agree on a larger bound",
            )
        numbers = numbers / setting.bound
        starts = range(0, setting.dimension, SLOTS)
        tenseal = _tenseal()
        vectors = (tenseal.ckks_vector(self._context, numbers[start : start + SLOTS]) for start in starts)
        return _packed(setting, [vector.serialize() for vector in vectors])

    def open(self, data: bytes, summands: int) -> NDArray[np.float64]:
        """Decrypt a sum.

        Args:
            data: from `Adder.total`.
            summands: vectors in it, as all silos know it.

        Returns:
            `[d]`, with an error below 1e-4 of the bound.

        Raises:
            PrivacyError: the bytes are no sum of this setting, too few or too many are in it, or it is larger than so many vectors can make it.
        """
        if not 2 <= summands <= self.setting.silos:
            raise PrivacyError(
                f"a sum of {summands} vectors is to be opened",
                allowed=f"2 to {self.setting.silos}; a sum of one is an update",
            )
        vectors = _read(self.setting, self._context, data)
        units = np.concatenate([np.asarray(vector.decrypt(), np.float64) for vector in vectors])
        if units.shape != (self.setting.dimension,) or not (np.abs(units) <= summands + _STEP).all():
            raise PrivacyError(
                f"a decrypted sum of {summands} vectors holds numbers that they cannot make",
                allowed=f"at most {summands * self.setting.bound:g}",
                remedy="It was made under another key, or changed on its way",
            )
        return np.asarray(np.round(units / _STEP) * (_STEP * self.setting.bound))


class Adder:
    """The server's side: adds what it cannot open, and has no key.

    Raises:
        PrivacyError: TenSEAL is not installed.
    """

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.summands = 0
        # Addition needs the moduli only; the key that every new context comes with stays behind.
        self._context = _tenseal().context_from(_parameters(_context()))
        self._vectors: list[Any] = []

    def add(self, data: bytes) -> None:
        """Add one silo's vector. Raises PrivacyError, and leaves the sum as it is, for bytes that are none, and for more vectors than silos."""
        if self.summands >= self.setting.silos:
            raise PrivacyError(
                f"vector {self.summands + 1} is to be added",
                allowed=f"one for each of {self.setting.silos} silos",
            )
        vectors = _read(self.setting, self._context, data)
        if self._vectors:
            try:
                vectors = [a + b for a, b in zip(self._vectors, vectors, strict=True)]
            except (ValueError, RuntimeError) as error:
                raise PrivacyError(
                    "a ciphertext does not fit the sum", remedy="It was made otherwise"
                ) from error
        self._vectors = vectors
        self.summands += 1

    def total(self) -> bytes:
        """The sum, for the silos. Raises PrivacyError for fewer than two vectors."""
        if self.summands < 2:
            raise PrivacyError(f"a sum of {self.summands} is asked for", allowed="two vectors at least")
        return _packed(self.setting, [vector.serialize() for vector in self._vectors])


#: A context travels without what addition does not need.
_KEYS = {"save_public_key": False, "save_galois_keys": False, "save_relin_keys": False}


def _tenseal() -> Any:
    try:
        import tenseal
    except ImportError as error:
        raise PrivacyError(
            "sums under homomorphic encryption need TenSEAL",
            remedy="Install it: pip install 'haina[ckks]'; or take secure aggregation, which needs nothing more",
        ) from error
    return tenseal


def _context() -> Any:
    tenseal = _tenseal()
    context = tenseal.context(
        tenseal.SCHEME_TYPE.CKKS,
        poly_modulus_degree=_DEGREE,
        coeff_mod_bit_sizes=list(_MODULI),
        encryption_type=tenseal.ENCRYPTION_TYPE.SYMMETRIC,
    )
    context.global_scale = _SCALE
    return context


def _read_secret(secret: bytes) -> Any:
    tenseal = _tenseal()
    if not 0 < len(secret) <= _SECRET:
        raise PrivacyError(f"a secret key has {len(secret)} bytes", allowed=f"1 to {_SECRET}")
    try:
        context = tenseal.context_from(bytes(secret))
        ours = context.is_private() and _parameters(context) == _parameters(_context())
    except (ValueError, RuntimeError, TypeError) as error:
        raise PrivacyError("bytes are not a secret key", remedy="Ask for them again") from error
    if not ours:
        raise PrivacyError(
            "a secret key has other parameters, or is none",
            allowed=f"CKKS of degree {_DEGREE} with moduli of {_MODULI} bits",
        )
    return context


def _parameters(context: Any) -> bytes:
    return bytes(context.serialize(**_KEYS, save_secret_key=False))


def _packed(setting: Setting, ciphertexts: list[bytes]) -> bytes:
    head = _HEAD.pack(_MAGIC, setting.dimension, len(ciphertexts))
    return b"".join([head, *(_LENGTH.pack(len(one)) for one in ciphertexts), *ciphertexts])


def _read(setting: Setting, context: Any, data: bytes) -> list[Any]:
    """Ciphertexts from bytes that may be anything: every length is checked before TenSEAL sees a byte."""
    count = setting.ciphertexts
    start = _HEAD.size + count * _LENGTH.size
    if not start <= len(data) <= start + count * _CIPHERTEXT:
        raise PrivacyError(
            f"an encrypted vector has {len(data)} bytes", allowed=f"{start} to {start + count * _CIPHERTEXT}"
        )
    if _HEAD.unpack_from(data) != (_MAGIC, setting.dimension, count):
        raise PrivacyError(
            "an encrypted vector begins with another head", allowed=f"{setting.dimension} numbers"
        )
    lengths = [length for (length,) in _LENGTH.iter_unpack(data[_HEAD.size : start])]
    if max(lengths) > _CIPHERTEXT or start + sum(lengths) != len(data):
        raise PrivacyError("the lengths of ciphertexts do not add up", allowed=f"at most {_CIPHERTEXT} each")
    tenseal, vectors = _tenseal(), []
    for size, length in zip(setting.sizes(), lengths, strict=True):
        try:
            vector = tenseal.ckks_vector_from(context, data[start : start + length])
            form = [(one.size(), one.coeff_modulus_size(), one.scale) for one in vector.ciphertext()]
            numbers = vector.size()
        except (ValueError, RuntimeError, TypeError) as error:
            raise PrivacyError("a ciphertext cannot be read", remedy="It was changed on its way") from error
        if numbers != size or form != [_FORM]:
            raise PrivacyError(
                f"a ciphertext holds {numbers} numbers, in parts, moduli and scale {form}",
                allowed=f"{size} numbers, {[_FORM]}",
                remedy="It was made by another programme",
            )
        vectors.append(vector)
        start += length
    return vectors
