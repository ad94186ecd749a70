"""Layout: any model as one flat vector, and back.

Trust, weights, robust rules, clipping, noise, masks, compression and hashing work on that vector and never on a tensor by name. What
stays with the client is decided here once: integer and boolean buffers always (a mean of counters is not a counter), and every tensor
that matches a `local` pattern (`"*.bn*"` for batch norm, `"head.*"` for personal heads, all but the adapters for LoRA).
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod

import numpy as np

from haina.artifact import Array, dump, load, sha256
from haina.errors import LayoutError


@dataclass(frozen=True, slots=True)
class Field:
    """One named tensor: its shape and dtype, and whether it travels."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    shared: bool

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)


@dataclass(frozen=True)
class Layout:
    """Ordered names, shapes and dtypes of a model, and which of them are shared.

    Args:
        fields: the tensors in the model's own order.
        dtype: what the flat vector holds: float32 for models, float64 for exact statistics.
    """

    fields: tuple[Field, ...]
    dtype: str = "float32"

    @classmethod
    def of(
        cls,
        tensors: Mapping[str, Array],
        *,
        local: Sequence[str] = (),
        shared: Sequence[str] = ("*",),
        dtype: str = "float32",
    ) -> Layout:
        """The layout of named tensors.

        Args:
            tensors: name -> array.
            local: shell patterns of tensors that stay with the client.
            shared: shell patterns of tensors that may travel at all; `("*lora*",)` shares adapters only.
            dtype: dtype of the flat vector.

        Raises:
            LayoutError: nothing is left to share, or a pattern matches no tensor (a typing error would silently share a personal head).
        """
        for pattern in (*local, *shared):
            if not any(fnmatch.fnmatchcase(name, pattern) for name in tensors):
                raise LayoutError(
                    f"pattern {pattern!r} matches no tensor",
                    allowed=", ".join(tensors),
                    remedy="Mend the pattern",
                )
        fields = tuple(
            Field(
                name,
                tuple(int(size) for size in array.shape),
                str(array.dtype.newbyteorder("=")),
                shared=np.issubdtype(array.dtype, np.floating)
                and _matches(name, shared)
                and not _matches(name, local),
            )
            for name, array in tensors.items()
        )
        layout = cls(fields, dtype)
        if not layout.size:
            raise LayoutError(
                "no tensor is shared, so there is nothing to learn together",
                allowed="at least one floating-point tensor outside the local patterns",
            )
        return layout

    @classmethod
    def vector(cls, size: int, *, name: str = "vector", dtype: str = "float32") -> Layout:
        """A layout of one unnamed vector of `size` elements."""
        return cls((Field(name, (size,), dtype, shared=True),), dtype)

    @cached_property
    def size(self) -> int:
        """Number of shared elements: the length of the flat vector."""
        return sum(field.size for field in self.shared)

    @cached_property
    def shared(self) -> tuple[Field, ...]:
        """The fields that travel, in order."""
        return tuple(field for field in self.fields if field.shared)

    def pack(self, tensors: Mapping[str, Array]) -> Array:
        """Shared tensors -> one flat vector `[size]` of the layout's dtype.

        Raises:
            LayoutError: a tensor is missing or has another shape.
        """
        out = np.empty(self.size, self.dtype)
        start = 0
        for field in self.shared:
            if field.name not in tensors:
                raise LayoutError(f"tensor {field.name!r} is missing", allowed=_names(self.shared))
            array = np.asarray(tensors[field.name])
            if array.shape != field.shape:
                raise LayoutError(f"tensor {field.name!r} has shape {array.shape}", allowed=f"{field.shape}")
            out[start : start + field.size] = array.reshape(-1)
            start += field.size
        return out

    def unpack(self, vector: Array, local: Mapping[str, Array] | None = None) -> dict[str, Array]:
        """Flat vector -> named tensors in their own dtypes; local tensors are taken from `local` if given.

        Raises:
            LayoutError: the vector has another length.
        """
        self.check(vector)
        out: dict[str, Array] = {}
        start = 0
        for field in self.fields:
            if field.shared:
                piece = vector[start : start + field.size]
                out[field.name] = piece.reshape(field.shape).astype(field.dtype, copy=False)
                start += field.size
            elif local is not None and field.name in local:
                out[field.name] = local[field.name]
        return out

    def check(self, vector: Array) -> None:
        """Refuse a vector that is not `[size]`."""
        if vector.shape != (self.size,):
            raise LayoutError(f"the vector has shape {vector.shape}", allowed=f"({self.size},)")

    def to_bytes(self, vector: Array) -> bytes:
        """Canonical bytes of the shared tensors (`haina.artifact`)."""
        return dump(self.unpack(vector))

    def from_bytes(self, data: bytes) -> Array:
        """Canonical bytes -> flat vector; names, shapes and dtypes must be this layout's."""
        tensors, _ = load(data)
        found = [(name, array.shape, str(array.dtype)) for name, array in tensors.items()]
        if found != [(field.name, field.shape, field.dtype) for field in self.shared]:
            raise LayoutError(
                f"the model holds {', '.join(tensors) or 'nothing'}",
                allowed=_names(self.shared) + " with equal shapes",
            )
        return self.pack(tensors)

    def identity(self, vector: Array) -> str:
        """SHA-256 of the canonical bytes: the identity of a model."""
        return sha256(self.to_bytes(vector))


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _names(fields: Iterable[Field]) -> str:
    return ", ".join(field.name for field in fields)
