"""Canonical bytes: named arrays in safetensors layout, the same arrays always giving the same bytes.

The SHA-256 of these bytes is a model's identity, so they must not depend on a library's ordering: the header is compact JSON in
the caller's order of names, offsets are contiguous in that order, and the header is padded with spaces to a multiple of 8 (the
safetensors format, https://github.com/huggingface/safetensors#format). Any safetensors reader opens them.

Reading checks every length before it allocates, so bytes from the network cannot ask for more memory than they bring.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from haina.errors import LayoutError

Array = NDArray[Any]

#: Bytes in parts, to be written one after the other.
Pieces = Sequence[bytes | memoryview]

_DTYPES: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U64": np.dtype("<u8"),
    "U32": np.dtype("<u4"),
    "U16": np.dtype("<u2"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}

#: A header longer than this is refused; 100 MB is the limit of the reference reader too.
MAX_HEADER = 100_000_000

#: NumPy holds no more dimensions; a longer shape would cost more to multiply out than it is worth.
MAX_RANK = 64

_METADATA = "__metadata__"


def dump(arrays: Mapping[str, Array], metadata: Mapping[str, str] | None = None) -> bytes:
    """Serialise named arrays, in the order of the mapping.

    Args:
        arrays: name -> array of any shape; float, integer or bool, any byte order (little-endian is written).
        metadata: optional text; it becomes part of the bytes, so leave it out where the bytes are an identity.

    Raises:
        LayoutError: a dtype or a name that the format cannot hold.
    """
    return b"".join(pieces(arrays, metadata))


def pieces(arrays: Mapping[str, Array], metadata: Mapping[str, str] | None = None) -> Pieces:
    """The bytes of `dump` as they lie in memory: a header, then the arrays, not copied unless they must be. Arguments and errors as there."""
    header: dict[str, Any] = {}
    if metadata:
        header[_METADATA] = {key: metadata[key] for key in sorted(metadata)}
    chunks: list[memoryview] = []
    offset = 0
    for name, array in arrays.items():
        if name == _METADATA:
            raise LayoutError(f"a tensor is called {name!r}", allowed="any other name")
        dtype = array.dtype.newbyteorder("<") if array.dtype.byteorder == ">" else array.dtype
        if dtype not in _NAMES:
            raise LayoutError(f"tensor {name!r} has dtype {array.dtype}", allowed=", ".join(map(str, _NAMES)))
        data = np.ascontiguousarray(array, dtype=dtype).reshape(-1).view(np.uint8)
        header[name] = {
            "dtype": _NAMES[dtype],
            "shape": list(array.shape),
            "data_offsets": [offset, offset + data.nbytes],
        }
        offset += data.nbytes
        chunks.append(data.data)
    try:
        head = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise LayoutError(
            f"the name {error.object[error.start : error.end]!r} is not Unicode text"
        ) from error
    head += b" " * (-len(head) % 8)
    return [len(head).to_bytes(8, "little") + head, *chunks]


def load(data: bytes | memoryview) -> tuple[dict[str, Array], dict[str, str]]:
    """Read what `dump` (or any safetensors writer) wrote.

    Returns:
        The arrays (read-only views of `data`) in the order of the header, and the metadata.

    Raises:
        LayoutError: the bytes are truncated, overlong, inconsistent or use an unknown dtype.
    """
    view = memoryview(data)
    if len(view) < 8:
        raise LayoutError(
            f"{len(view)} bytes are too few for a model", remedy="The upload or file was cut short"
        )
    length = int.from_bytes(view[:8], "little")
    if length > MAX_HEADER or 8 + length > len(view):
        raise LayoutError(
            f"the header claims {length} bytes of {len(view)}", remedy="The upload or file is damaged"
        )
    try:
        header = json.loads(bytes(view[8 : 8 + length]).decode(), object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise LayoutError("the header is not JSON", remedy="The upload or file is damaged") from error
    if not isinstance(header, dict):
        raise LayoutError("the header is not a JSON object", remedy="The upload or file is damaged")
    metadata = header.pop(_METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise LayoutError("the metadata is not text", remedy="The upload or file is damaged")
    body = view[8 + length :]
    arrays: dict[str, Array] = {}
    end = 0
    for name, entry in header.items():
        array, end = _read_entry(name, entry, body, end)
        arrays[name] = array
    if end != len(body):
        raise LayoutError(
            f"{len(body) - end} bytes follow the last tensor", remedy="The upload or file is damaged"
        )
    return arrays, metadata


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; one that says a name twice means different things to different readers."""
    out = dict(pairs)
    if len(out) < len(pairs):
        raise LayoutError("the header says a name twice", remedy="The upload or file is damaged")
    return out


def _read_entry(name: str, entry: object, body: memoryview, start: int) -> tuple[Array, int]:
    damaged = LayoutError(
        f"tensor {name!r} has an unusable description", remedy="The upload or file is damaged"
    )
    if not isinstance(entry, dict):
        raise damaged
    dtype = _DTYPES.get(str(entry.get("dtype")))
    shape, offsets = _naturals(entry.get("shape")), _naturals(entry.get("data_offsets"))
    if dtype is None or shape is None or offsets is None or len(offsets) != 2:
        raise damaged
    begin, end = offsets
    if begin != start or end - begin != prod(shape) * dtype.itemsize or end > len(body):
        raise damaged
    try:
        return np.frombuffer(body[begin:end], dtype=dtype).reshape(shape), end
    except ValueError as error:
        # No elements, and yet sizes beyond what NumPy can count.
        raise damaged from error


def _naturals(value: object) -> list[int] | None:
    if not isinstance(value, list) or len(value) > MAX_RANK:
        return None
    if all(type(v) is int and 0 <= v < 1 << 48 for v in value):
        return value
    return None


def sha256(data: bytes) -> str:
    """The identity of canonical bytes: 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()
