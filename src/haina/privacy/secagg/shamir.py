"""Shamir's secret sharing (1979) of many secrets at once, in the field of 2^31 - 1 numbers.

A secret of 32 bytes is nine limbs of 30 bits; each limb is the value at 0 of a random polynomial of degree t - 1, and a share is the values of all
nine at one point. Products of two field elements fit in 62 bits, so uint64 does the arithmetic, and 2^31 - 1 being a Mersenne prime a remainder is a
shift and an addition.

The trap: fewer than t shares say nothing, but t shares of which one is wrong give a wrong secret without a sign. Who joins must know the secret by
something else (`aggregator` does: a commitment, a public key).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.uint64]

PRIME = (1 << 31) - 1
#: Bits of a limb, and limbs of a secret of 32 bytes.
_BITS, LIMBS = 30, 9
_P, _SHIFT = np.uint64(PRIME), np.uint64(31)
_HALF, _LOW = np.uint64(16), np.uint64((1 << 16) - 1)


def split(secrets: Field, threshold: int, points: Field, entropy: Callable[[int], bytes]) -> Field:
    """Shares of some limbs.

    Args:
        secrets: `[m]` limbs below 2^31 - 1.
        threshold: t, 1 to 2^16.
        points: `[n]` different points in 1 to 2^31 - 2, one for each holder.
        entropy: random bytes.

    Returns:
        `[n, m]` values below 2^31 - 1.
    """
    coefficients = np.concatenate([secrets[None], random_field(threshold - 1, len(secrets), entropy)])
    powers = np.ones((len(points), threshold), np.uint64)
    done = 1
    while done < threshold:
        # x^done ... x^(2 done - 1) from the powers before.
        step = _reduce(powers[:, done - 1] * points)
        more = min(done, threshold - done)
        powers[:, done : done + more] = _reduce(powers[:, :more] * step[:, None])
        done += more
    # 31 bits times 16 bits, and at most 2^16 of them: below 2^63.
    high, low = powers @ (coefficients >> _HALF), powers @ (coefficients & _LOW)
    return _reduce(_reduce(_reduce(high) << _HALF) + low)


def join(points: Field, shares: Field) -> Field:
    """Secrets from exactly as many shares each as their threshold.

    Args:
        points: `[b, t]`: of each secret the points of its shares, all different within a row.
        shares: `[b, t, m]`.

    Returns:
        `[b, m]` limbs: sum_j y_j prod_{i != j} x_i / (x_i - x_j).
    """
    rows, which = np.unique(points, axis=0, return_inverse=True)
    weights = _weights(rows)[which.reshape(-1)]
    total = np.zeros((shares.shape[0], shares.shape[2]), np.uint64)
    for j in range(points.shape[1]):
        total += _reduce(weights[:, j, None] * shares[:, j])
    return _reduce(total)


def to_limbs(secrets: bytes) -> Field:
    """`[9 n]` limbs of n secrets of 32 bytes."""
    out = np.empty(len(secrets) // 32 * LIMBS, np.uint64)
    for n in range(len(secrets) // 32):
        value = int.from_bytes(secrets[32 * n : 32 * n + 32], "little")
        for limb in range(LIMBS):
            out[n * LIMBS + limb] = value >> (_BITS * limb) & ((1 << _BITS) - 1)
    return out


def from_limbs(limbs: Sequence[int]) -> bytes | None:
    """The 32 bytes of nine limbs; None where no secret has these limbs."""
    value = 0
    for limb in reversed(limbs):
        value = value << _BITS | limb
    if value >> 256 or max(limbs) >> _BITS:
        return None
    return value.to_bytes(32, "little")


def readable(shares: bytes) -> bool:
    """Whether bytes are field elements, each in four bytes with the lowest first."""
    return len(shares) % 4 == 0 and bool((np.frombuffer(shares, "<u4") < PRIME).all())


def random_field(rows: int, columns: int, entropy: Callable[[int], bytes]) -> Field:
    """`[rows, columns]` numbers, uniform below 2^31 - 1: 31 random bits, drawn again where they are all ones."""
    out: Field = _draw(rows * columns, entropy)
    while (again := np.flatnonzero(out == _P)).size:
        out[again] = _draw(again.size, entropy)
    return out.reshape(rows, columns)


def _draw(size: int, entropy: Callable[[int], bytes]) -> Field:
    return (np.frombuffer(entropy(4 * size), "<u4") & np.uint32(PRIME)).astype(np.uint64)


def _reduce(x: Field) -> Field:
    """x modulo 2^31 - 1, for any x."""
    x = (x & _P) + (x >> _SHIFT)
    x = (x & _P) + (x >> _SHIFT)
    # Now x < 2^31 + 6, so less than twice the prime.
    return np.where(x >= _P, x - _P, x)


def _weights(points: Field) -> Field:
    """`[b, t]` points -> the weight of each share in its secret (Lagrange, at 0)."""
    above, below = np.ones_like(points), np.ones_like(points)
    for i in range(points.shape[1]):
        one = points[:, i, None]
        others = np.arange(points.shape[1]) != i
        above[:, others] = _reduce(above[:, others] * one)
        below[:, others] = _reduce(below[:, others] * _reduce(one + (_P - points[:, others])))
    return _reduce(above * _inverse(below))


def _inverse(x: Field) -> Field:
    """x^(p - 2), which is 1 / x (Fermat)."""
    out = np.ones_like(x)
    for bit in f"{PRIME - 2:b}":
        out = _reduce(out * out)
        if bit == "1":
            out = _reduce(out * x)
    return out
