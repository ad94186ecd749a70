"""int8: one scale for every 4096 numbers, then multiples of it."""

from __future__ import annotations

import numpy as np

from haina.artifact import Array
from haina.wire.codecs.coder import F4, GROUP, CodecError, Coder, not_finite, steps, target_of

_TINY = float(np.finfo(np.float32).tiny)
#: With it, no multiple overflows.
_WIDEST = float(np.finfo(np.float32).max) / 128


class Int8(Coder):
    """Multiples -127..127 of max / 127 of each group. A group too small for a normal scale is all residual."""

    def size(self, length: int) -> int:
        """A scale for each group, and 1 byte a number."""
        return 4 * _groups(length) + length

    def encode(self, vector: Array, residual: Array | None) -> tuple[Array, Array]:
        """To the nearest multiple; the residual of each number is at most half of its group's scale."""
        body = np.empty(self.size(len(vector)), np.uint8)
        scales, numbers = _split(body, _groups(len(vector)))
        left = np.empty(len(vector), F4)
        for step in steps(len(vector)):
            target = target_of(vector, residual, step)
            rows = target.reshape(-1, min(GROUP, len(target)))
            work = np.abs(rows)
            scale = work.max(axis=1)
            scale /= 127
            if not (scale <= _WIDEST).all():
                raise not_finite()
            scale[scale < _TINY] = 0
            inverse = np.divide(1, scale, out=np.zeros_like(scale), where=scale > 0)
            np.multiply(rows, inverse[:, None], out=work)
            np.rint(work, out=work)
            scales[step.start // GROUP :][: len(scale)] = scale
            numbers[step] = work.reshape(-1)
            work *= scale[:, None]
            np.subtract(target, work.reshape(-1), out=left[step])
        return body, left

    def check(self, body: Array, length: int) -> None:
        """Scales are numbers >= 0, and small enough that no product overflows."""
        scales, _ = _split(body, _groups(length))
        fine = (scales >= 0) & (scales <= _WIDEST)
        if not fine.all():
            group = int(np.argmin(fine))
            raise CodecError(f"the scale of group {group} is {scales[group]}", allowed=f"0 to {_WIDEST:.3g}")

    def part(self, body: Array, start: int, stop: int, length: int) -> Array:
        """Scale times multiple; `start` is a multiple of `GROUP`."""
        scales, numbers = _split(body, _groups(length))
        out = numbers[start:stop].astype(F4)
        first, whole = start // GROUP, len(out) // GROUP
        rows, rest = out[: whole * GROUP].reshape(-1, GROUP), out[whole * GROUP :]
        rows *= scales[first : first + whole, None]
        rest *= scales[first + whole : first + whole + 1]
        return out


def _groups(length: int) -> int:
    return -(-length // GROUP)


def _split(body: Array, groups: int) -> tuple[Array, Array]:
    return body[: 4 * groups].view(F4), body[4 * groups :].view(np.int8)
