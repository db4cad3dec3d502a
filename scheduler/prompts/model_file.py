"""The file of a fitted model: a line of JSON that says what follows, and its arrays, compressed."""

from __future__ import annotations

import hashlib
import json
import math
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_BYTES = 1 << 28
"""No file may unpack to more."""

Array = NDArray[Any]


def digest(header: Mapping[str, Any], body: bytes) -> str:
    """First 16 hex digits of the SHA-256 of the content."""
    canonical = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    return hashlib.sha256(canonical + b"\n" + body).hexdigest()[:16]


def pack(header: Mapping[str, Any], body: bytes, level: int) -> bytes:
    """The file.

    Args:
        header: JSON values, among them `format` and `schema_version`.
        body: The arrays, one behind the other.
        level: Of zlib's compression.
    """
    line = json.dumps({"version": digest(header, body), **header}, sort_keys=True)
    return line.encode() + b"\n" + zlib.compress(body, level)


def unpack(data: bytes, kind: str, schema_version: int) -> tuple[dict[str, Any], bytes]:
    """Header and body of what `pack` wrote.

    Args:
        data: The file.
        kind: The `format` that it has to be of.
        schema_version: The one that it has to be of.

    Raises:
        ValueError: It is something else, cut off, changed, or from another version.
    """
    line, separator, packed = data.partition(b"\n")
    try:
        header = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"no file of a {kind}") from error
    if not isinstance(header, dict) or header.get("format") != kind:
        raise ValueError(f"no file of a {kind}")
    schema = header.get("schema_version")
    if schema != schema_version:
        raise ValueError(f"schema_version: this program reads {schema_version}, got {schema!r}")
    stated = header.pop("version", None)
    body = _decompressed(packed) if separator else b""
    if stated != (actual := digest(header, body)):
        raise ValueError(f"version: says {stated}, the content hashes to {actual}")
    return header, body


def arrays_of(
    body: bytes, kinds: Mapping[str, str], shapes: Mapping[str, Sequence[int]]
) -> dict[str, Array]:
    """The arrays that the body holds, in the order of `kinds`.

    Args:
        body: As `unpack` returns it.
        kinds: Data type of each.
        shapes: Shape of each.

    Raises:
        ValueError: It holds less, or more.
    """
    arrays: dict[str, Array] = {}
    start = 0
    for name, kind in kinds.items():
        shape = tuple(int(size) for size in shapes[name])
        arrays[name] = np.frombuffer(body, kind, math.prod(shape), start).reshape(shape)
        start += arrays[name].nbytes
    if start != len(body):
        raise ValueError("the arrays are longer than they should be")
    return arrays


def _decompressed(packed: bytes) -> bytes:
    unpacker = zlib.decompressobj()
    try:
        body = unpacker.decompress(packed, MAX_BYTES)
    except zlib.error as error:
        raise ValueError(f"the arrays are damaged: {error}") from error
    if not unpacker.eof:
        raise ValueError("cut off, or too large")
    return body
