"""Frames: messages between a process and its child, over pipes.

A message is named arrays and words as canonical bytes (`haina.artifact`), behind its length. Nothing is unpickled, so a child that ran somebody's
code can send numbers and words, and nothing that acts.
"""

from __future__ import annotations

from typing import IO

#: A longer message is not written by us.
MAX_FRAME = 1 << 40


def write_frame(pipe: IO[bytes], *pieces: bytes | memoryview) -> None:
    """Write bytes, given in pieces that are not put together first, behind their length (8 bytes, little-endian)."""
    pipe.write(sum(len(piece) for piece in pieces).to_bytes(8, "little"))
    for piece in pieces:
        pipe.write(piece)
    pipe.flush()


def read_frame(pipe: IO[bytes]) -> bytes:
    """Read what `write_frame` wrote.

    Raises:
        EOFError: the other side is gone, or does not write frames.
    """
    head = pipe.read(8)
    length = int.from_bytes(head, "little")
    if len(head) < 8 or length > MAX_FRAME:
        raise EOFError
    data = pipe.read(length)
    if len(data) < length:
        raise EOFError
    return data
