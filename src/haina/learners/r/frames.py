"""Frames between Python and R: a small JSON header and float64 numbers behind it.

    int32   bytes of the header          both little-endian
    int32   how many float64 numbers
    JSON    the header, in UTF-8
    float64 the numbers, little-endian

Vectors are never JSON: R's jsonlite keeps 15 digits of a number (8 % of doubles survive), and a million numbers take 2 seconds where bytes take
30 ms.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from haina.artifact import Array
from haina.errors import LearnerError

#: A longer header is not written by us: names of columns are the longest part.
MAX_HEADER = 1 << 24
#: R counts in 32 bits with a sign.
MAX_NUMBERS = (1 << 31) - 1

_LENGTHS = struct.Struct("<ii")


class FrameError(LearnerError):
    """Bytes that are no frame, or one that is too long."""


def frame(header: Mapping[str, Any], *arrays: Array) -> list[bytes | memoryview]:
    """A frame, in pieces that are not put together first.

    Args:
        header: plain JSON values, without NaN.
        arrays: written one after the other as float64; a matrix column by column, as R keeps it.

    Raises:
        FrameError: more numbers than R can count, or a longer header than the other side reads.
    """
    words = json.dumps(header, allow_nan=False).encode()
    columns = [np.asarray(array, np.dtype("<f8")).ravel(order="F") for array in arrays]
    count = sum(map(len, columns))
    if len(words) > MAX_HEADER or count > MAX_NUMBERS:
        raise FrameError(
            f"a message to R has {count} numbers and {len(words)} bytes of names",
            allowed=f"{MAX_NUMBERS} numbers and {MAX_HEADER} bytes",
            remedy="Give R fewer rows or columns",
        )
    head = _LENGTHS.pack(len(words), count) + words
    return [head, *(memoryview(column.data).cast("B") for column in columns if len(column))]


def read_frame(read: Callable[[int], bytes | bytearray], most: int) -> tuple[dict[str, Any], Array]:
    """Read a frame.

    Args:
        read: gives exactly so many bytes, or raises.
        most: numbers that there may be. Limits are checked before anything is read.

    Raises:
        FrameError: it is none, or longer than allowed.
    """
    length, count = _LENGTHS.unpack(read(_LENGTHS.size))
    if not 0 < length <= MAX_HEADER or not 0 <= count <= most:
        raise FrameError(
            f"R announced {length} bytes of header and {count} numbers",
            allowed=f"1 to {MAX_HEADER} bytes and at most {most} numbers",
        )
    try:
        header = json.loads(bytes(read(length)))
    except (ValueError, RecursionError) as error:
        raise FrameError("the header of R's answer is not JSON") from error
    if not isinstance(header, dict):
        raise FrameError("the header of R's answer is not a table", allowed="a JSON object")
    return header, np.frombuffer(read(8 * count), np.dtype("<f8"))
