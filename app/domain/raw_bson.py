"""A BSON document's elements, found by their bounds without decoding it.

Layout: https://bsonspec.org/spec.html. Pure: bytes in, bytes out.
"""

import struct
from collections.abc import Iterator
from struct import Struct
from typing import Final

from app.domain.raw_events import RawEvents

_INT32: Final = Struct("<i")
_FIXED: Final = {
    0x01: 8, 0x06: 0, 0x07: 12, 0x08: 1, 0x09: 8, 0x0A: 0, 0x10: 4, 0x11: 8, 0x12: 8, 0x13: 16, 0x7F: 0, 0xFF: 0,
}  # fmt: skip
"""The bytes of values that have always as many, by their type."""
_TEXT: Final = {0x02, 0x0D, 0x0E}
"""Values that say how many bytes follow: a string, JavaScript, a symbol."""
_WHOLE: Final = {0x03, 0x04, 0x0F}
"""Values that say how many bytes they have in all: a document, an array, JavaScript with a scope."""
_PLAIN_KEYS: Final = {kind: 5 + size for kind, size in _FIXED.items()}
"""The bytes of an element `_id` with such a value."""
_SIZES: Final = {size: _INT32.pack(5 + size) for size in _PLAIN_KEYS.values()}
"""The length of a document with such an element alone, by the element's."""


def elements(document: bytes) -> Iterator[tuple[bytes, int, int, int]]:
    """Yield the name of each element, and where the element, its value, and what follows it begin.

    Raises ValueError for what is no BSON document."""
    try:
        if len(document) < 5 or _INT32.unpack_from(document)[0] != len(document) or document[-1]:
            raise ValueError("not a BSON document: its length is not the one it tells")
        at = 4
        while document[at]:
            name = document.index(b"\0", at + 1)
            end = _end(document, document[at], name + 1)
            if not name < end < len(document):
                raise ValueError("not a BSON document: an element is longer than it")
            yield document[at + 1 : name], at, name + 1, end
            at = end
        if at != len(document) - 1:
            raise ValueError("not a BSON document: it ends early")
    except (IndexError, struct.error) as error:
        raise ValueError(f"not a BSON document: {error}") from error


def _end(document: bytes, kind: int, at: int) -> int:
    """Return where a value ends that begins at `at`."""
    if kind in _FIXED:
        return at + _FIXED[kind]
    if kind in _TEXT:
        return at + 4 + int(_INT32.unpack_from(document, at)[0])
    if kind in _WHOLE:
        return at + int(_INT32.unpack_from(document, at)[0])
    if kind == 0x05:
        return at + 5 + int(_INT32.unpack_from(document, at)[0])
    if kind == 0x0C:
        return at + 16 + int(_INT32.unpack_from(document, at)[0])
    if kind == 0x0B:
        return document.index(b"\0", document.index(b"\0", at) + 1) + 1
    raise ValueError(f"not a BSON document: there is no type {kind:#04x}")


def document_of(*parts: bytes) -> bytes:
    """Return the document that these elements make."""
    return b"".join((_INT32.pack(5 + sum(map(len, parts))), *parts, b"\0"))


def keys_of(events: RawEvents) -> list[bytes]:
    """Return the key of each of the documents, as `key_of` does. Raises ValueError.

    A snapshot asks this of every document, so most are answered by a look at their first element alone."""
    buffer, keys = events.buffer, []
    for start, end in zip(events.starts, events.ends, strict=True):
        size = _PLAIN_KEYS.get(buffer[start + 4]) if buffer[start + 5 : start + 9] == b"_id\0" else None
        if size is not None and start + size < end:
            keys.append(_SIZES[size] + buffer[start + 4 : start + 4 + size] + b"\0")
        else:
            keys.append(key_of(buffer[start:end]))
    return keys


def key_of(document: bytes) -> bytes:
    """Return the document that has the `_id` of another one alone. Raises ValueError where that has none."""
    for name, begin, _, end in elements(document):  # MongoDB stores it as the first one
        if name == b"_id":
            return document_of(document[begin:end])
    raise ValueError("a document without an _id")
