"""Envelope: the bytes of a model as a fixed header and a flat vector, so that a coordinator publishes models without the learner that made them.

The bytes of a model (`haina.artifact`) begin with names, shapes and offsets, which never change while a federation runs, and go on with the numbers
in the order of the flat vector. So `header + vector` are the bytes, and neither is ever copied. A collected document (a forest) is its own bytes, an
envelope without a header; it begins with a brace, which canonical bytes never do, as their first byte is a multiple of 8.

Two kinds of models are not that simple. Tensors that stay with clients are in neither the bytes nor the vector, so nothing changes. Tensors of
different dtypes are still one float32 vector: their bytes are then made tensor by tensor, which copies.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from haina.artifact import Array, load
from haina.errors import LayoutError


@dataclass(frozen=True)
class Envelope:
    """The fixed part of a federation's models.

    Args:
        header: what every model begins with; empty for documents.
        length: d, the length of the vector; 0 for documents, whose length is free.
        dtype: of the vector: float64 where all tensors are, uint8 for documents, else float32.
        tensors: dtype and number of elements of each tensor, in order; neighbours of one dtype are one.
    """

    header: bytes
    length: int
    dtype: np.dtype[np.generic]
    tensors: tuple[tuple[np.dtype[np.generic], int], ...]

    @classmethod
    def of(cls, model: bytes | memoryview) -> Envelope:
        """The envelope of the first model's bytes, and so of all that follow.

        Raises:
            LayoutError: the bytes are no model.
        """
        if bytes(model[:1]) == b"{":
            return cls(b"", 0, np.dtype(np.uint8), ())
        arrays, _ = load(model)
        tensors: list[tuple[np.dtype[np.generic], int]] = []
        for array in arrays.values():
            same = bool(tensors) and tensors[-1][0] == array.dtype
            before = tensors.pop()[1] if same else 0
            tensors.append((array.dtype, before + array.size))
        exact = {dtype for dtype, _ in tensors} == {np.dtype("<f8")}
        body = sum(dtype.itemsize * size for dtype, size in tensors)
        header = bytes(model[: len(model) - body])
        length = sum(size for _, size in tensors)
        return cls(header, length, np.dtype("<f8" if exact else "<f4"), tuple(tensors))

    @property
    def flat(self) -> bool:
        """True when the vector's own bytes are the model's."""
        return not self.tensors or [dtype for dtype, _ in self.tensors] == [self.dtype]

    def vector(self, data: bytes | memoryview | Path) -> Array:
        """`[d]` the model's vector, read-only: a view of the bytes, or of the file (mapped into memory, not read).

        Raises:
            LayoutError: the bytes are of another model, or damaged.
        """
        size = data.stat().st_size if isinstance(data, Path) else len(data)
        body = size - len(self.header)
        if body != self._body if self.tensors else not body:
            raise LayoutError(f"the model has {size} bytes", allowed=f"{len(self.header) + self._body} bytes")
        if isinstance(data, Path):
            with data.open("rb") as file:
                head = file.read(len(self.header))
            raw: Array = np.asarray(np.memmap(data, np.uint8, "r", len(self.header), (body,)))
        else:
            head = bytes(data[: len(self.header)])
            raw = np.frombuffer(data, np.uint8, offset=len(self.header))
        if head != self.header:
            raise LayoutError(
                "the model has other tensors", allowed="the names, shapes and dtypes of the first model"
            )
        if self.flat:
            return raw.view(self.dtype)
        out, start, place = np.empty(self.length, self.dtype), 0, 0
        for dtype, count in self.tensors:
            stop = start + count * dtype.itemsize
            out[place : place + count] = raw[start:stop].view(dtype)
            start, place = stop, place + count
        return out

    def pieces(self, vector: Array) -> tuple[bytes, memoryview]:
        """The bytes of a model in two pieces: the header, and the vector's own memory.

        Raises:
            LayoutError: the vector is not `[d]` of the envelope's dtype.
        """
        if vector.dtype != self.dtype or vector.ndim != 1 or (self.tensors and len(vector) != self.length):
            raise LayoutError(
                f"the vector has shape {vector.shape} and dtype {vector.dtype}",
                allowed=f"({self.length},) {self.dtype}",
            )
        if self.flat:
            return self.header, memoryview(np.ascontiguousarray(vector).view(np.uint8).data)
        pieces, place = [], 0
        for dtype, count in self.tensors:
            pieces.append(vector[place : place + count].astype(dtype).view(np.uint8))
            place += count
        return self.header, memoryview(np.concatenate(pieces).data)

    def size(self, vector: Array) -> int:
        """How many bytes the model has."""
        return len(self.header) + (self._body if self.tensors else vector.nbytes)

    def sha256(self, vector: Array) -> str:
        """The identity of the model: SHA-256 of its bytes."""
        header, body = self.pieces(vector)
        digest = hashlib.sha256(header)
        digest.update(body)
        return digest.hexdigest()

    @property
    def _body(self) -> int:
        return sum(dtype.itemsize * size for dtype, size in self.tensors)
