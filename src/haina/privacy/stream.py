"""Stream: the random bits of noise and rounding, as the AES-256-CTR key stream of one 32-byte key.

A cipher and no statistical generator (PCG64, MT19937): whoever sees much of such a generator's output computes the rest, and takes the noise off.
AES runs at several GB/s on processors with AES instructions, so that bits cost less than what is done with them.

The trap is to use a key twice: the counter begins at zero, so two streams of one key are the same stream, and the same noise under two releases is
the difference of what they cover. A stream is made for one purpose, from fresh entropy or by a label of its own, and thrown away.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from numpy.typing import NDArray

from haina.errors import PrivacyError

#: Bytes of a key.
KEY = 32
#: Zeros that are enciphered at a time; small enough to stay in a level-2 cache.
_ZEROS = bytes(1 << 17)


class Stream:
    """Random bits that nobody without the key can tell from coin tosses.

    Args:
        key: 32 secret bytes that no other stream has. It is never printed.

    Raises:
        PrivacyError: the key has another length.
    """

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY:
            raise PrivacyError(f"a key of random bits has {len(key)} bytes", allowed=f"{KEY} bytes")
        self._cipher = Cipher(algorithms.AES(bytes(key)), modes.CTR(bytes(16))).encryptor()

    @classmethod
    def fresh(cls, entropy: Callable[[int], bytes]) -> Stream:
        """A stream that nobody can make again.

        Args:
            entropy: gives so many random bytes; `os.urandom` wherever data are real.
        """
        return cls(entropy(KEY))

    @classmethod
    def derived(cls, key: bytes, label: str) -> Stream:
        """The stream of a label: the same key and label give the same bits, other labels unrelated ones (HKDF-SHA256, RFC 5869).

        Args:
            key: 32 secret bytes, the root of any number of streams.
            label: what the bits are for, with all that tells one use from another (federation, round, purpose).

        Raises:
            PrivacyError: the key has another length.
        """
        if len(key) != KEY:
            raise PrivacyError(f"a root key of random bits has {len(key)} bytes", allowed=f"{KEY} bytes")
        info = b"haina stream\0" + label.encode()
        return cls(HKDF(algorithm=SHA256(), length=KEY, salt=None, info=info).derive(bytes(key)))

    def bytes(self, n: int) -> bytes:
        """The next n bytes."""
        return self._cipher.update(bytes(n))

    def uint64(self, n: int) -> NDArray[np.uint64]:
        """The next n words of 64 bits, `[n]`."""
        return self._words(8 * n).view("<u8")[:n]

    def uint32(self, n: int) -> NDArray[np.uint32]:
        """The next n words of 32 bits, `[n]`."""
        return self._words(4 * n).view("<u4")[:n]

    def _words(self, size: int) -> NDArray[np.uint8]:
        """The next bytes in an array of its own; the cipher wants room for one block more, and views want a whole number of words."""
        room = np.empty(-(-size // 8) * 8 + 16, np.uint8)
        target, zeros = room.data, memoryview(_ZEROS)
        for start in range(0, size, len(_ZEROS)):
            piece = min(len(_ZEROS), size - start)
            self._cipher.update_into(zeros[:piece], target[start : start + piece + 16])
        return room
