"""What a cursor's reply holds, found in its bytes: the driver would make an object for each event.

A reply of 4 MB has thousands of events. To read it the driver's way takes longer than everything else that is done
with an event. So the elements of the reply and of its `cursor` are walked here, and of each event only its bounds are
noted: a BSON document begins with its length. Nothing is read beyond the bounds of what holds it.

Pure: bytes in, values out.
"""

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from pymongo.errors import ProtocolError

from app.domain.raw_events import RawEvents

_INT32: Final = struct.Struct("<i").unpack_from
_INT64: Final = struct.Struct("<q").unpack_from
_TIMESTAMP: Final = struct.Struct("<II").unpack_from

_STRING, _DOCUMENT, _ARRAY, _INTEGER, _TIME, _LONG = 0x02, 0x03, 0x04, 0x10, 0x11, 0x12
_FIXED: Final = {
    0x01: 8, 0x06: 0, 0x07: 12, 0x08: 1, 0x09: 8, 0x0A: 0, _INTEGER: 4, _TIME: 8, _LONG: 8, 0x13: 16, 0x7F: 0, 0xFF: 0,
}  # fmt: skip
"""How many bytes a value of each type takes, where that is always the same."""
_AFTER_LENGTH: Final = {_STRING: 4, 0x0D: 4, 0x0E: 4, 0x05: 5, 0x0C: 16, _DOCUMENT: 0, _ARRAY: 0, 0x0F: 0}
"""And where the value begins with a length: how many bytes it takes beside those that the length counts."""
_LEAST: Final = 5
"""The bytes of an empty document: its length and the NUL at its end."""


class RawReply(NamedTuple):
    """What a `getMore` or the command that opens a change stream brought."""

    cursor: int
    """The cursor's id; 0 where the server has ended it."""
    events: RawEvents
    token: str
    """The postBatchResumeToken's `_data`."""
    operation_time: int
    """The server's operationTime, in seconds since 1970."""


class _Value(NamedTuple):
    """A value in the buffer: its BSON type, and from where to where it goes."""

    type: int
    start: int
    end: int


def read_reply(reply: bytes, batch: str) -> RawReply:
    """Read a reply; `batch` is the name of its array of events, `firstBatch` or `nextBatch`.

    Raises ProtocolError where the reply is damaged, or is none of a change stream's cursor."""
    top = _fields(reply, 0, len(reply), ("cursor", "operationTime"))
    cursor, time = _of_type(top, "cursor", _DOCUMENT), _of_type(top, "operationTime", _TIME)
    inner = _fields(reply, cursor.start, cursor.end, ("id", "postBatchResumeToken", batch))
    id_, array = _of_type(inner, "id", _LONG, _INTEGER), _of_type(inner, batch, _ARRAY)
    token = _of_type(inner, "postBatchResumeToken", _DOCUMENT)
    data = _of_type(_fields(reply, token.start, token.end, ("_data",)), "_data", _STRING)
    return RawReply(
        cursor=(_INT64 if id_.type == _LONG else _INT32)(reply, id_.start)[0],
        events=_events(reply, array.start, array.end),
        token=reply[data.start + 4 : data.end - 1].decode("ascii", "replace"),
        operation_time=_TIMESTAMP(reply, time.start)[1],
    )


def read_documents(reply: bytes) -> tuple[RawEvents, int]:
    """Find the documents of a command's first batch, and its cursor's id (0: the server has ended it).

    Raises ProtocolError where the reply is damaged, or has none."""
    cursor = _of_type(_fields(reply, 0, len(reply), ("cursor",)), "cursor", _DOCUMENT)
    inner = _fields(reply, cursor.start, cursor.end, ("id", "firstBatch"))
    array, id_ = _of_type(inner, "firstBatch", _ARRAY), _of_type(inner, "id", _LONG, _INTEGER)
    return _events(reply, array.start, array.end), (_INT64 if id_.type == _LONG else _INT32)(reply, id_.start)[0]


def _events(buffer: bytes, start: int, end: int) -> RawEvents:
    """Note the bounds of each document in an array. This loop runs once per event: it does as little as can be done.

    The names of an array's elements are its indexes in decimal, so their length is known."""
    last = _check_document(buffer, start, end)
    starts: list[int] = []
    ends: list[int] = []
    position, digits, more = start + 4, 1, 10
    note_start, note_end = starts.append, ends.append
    try:
        while position < last:
            begin = position + digits + 2
            if buffer[position] != _DOCUMENT or buffer[begin - 1]:
                raise _damaged("an event is no document", position)
            length = _INT32(buffer, begin)[0]
            position = begin + length
            if length < _LEAST or position > last:
                raise _damaged("an event is longer or shorter than its place", begin)
            note_start(begin)
            note_end(position)
            if len(starts) == more:
                digits, more = digits + 1, more * 10
    except (IndexError, struct.error) as error:
        raise _damaged("it ends too early", position) from error
    return RawEvents(buffer, starts, ends)


def _fields(buffer: bytes, start: int, end: int, names: tuple[str, ...]) -> dict[str, _Value]:
    """Return those of a document's fields that have these names. Of a name that comes twice the last one counts."""
    return {name: value for name, value in _elements(buffer, start, end) if name in names}


def _elements(buffer: bytes, start: int, end: int) -> Iterator[tuple[str, _Value]]:
    """Walk one level of the document between two offsets."""
    last = _check_document(buffer, start, end)
    position = start + 4
    while position < last:
        type_, begin = buffer[position], _after_nul(buffer, position + 1, last)
        finish = begin + _length(buffer, type_, begin, last)
        if finish > last:
            raise _damaged("a value is longer than its place", begin)
        yield buffer[position + 1 : begin - 1].decode("utf-8", "replace"), _Value(type_, begin, finish)
        position = finish


def _length(buffer: bytes, type_: int, begin: int, last: int) -> int:
    """Return how many bytes a value takes."""
    fixed = _FIXED.get(type_)
    if fixed is not None:
        return fixed
    if type_ == 0x0B:  # a regular expression: two texts, each with a NUL after it
        return _after_nul(buffer, _after_nul(buffer, begin, last), last) - begin
    if type_ not in _AFTER_LENGTH or begin + 4 > last:
        raise _damaged("a value of unknown type", begin)
    length = int(_INT32(buffer, begin)[0])
    least = _LEAST if _AFTER_LENGTH[type_] == 0 else 0 if type_ == 0x05 else 1
    if length < least:
        raise _damaged("a value shorter than its kind", begin)
    return length + _AFTER_LENGTH[type_]


def _after_nul(buffer: bytes, start: int, last: int) -> int:
    """Return the offset after the next NUL."""
    found = buffer.find(b"\0", start, last)
    if found < 0:
        raise _damaged("a text without an end", start)
    return found + 1


def _check_document(buffer: bytes, start: int, end: int) -> int:
    """Return where the NUL of the document between two offsets is."""
    if end - start < _LEAST or _INT32(buffer, start)[0] != end - start or buffer[end - 1]:
        raise _damaged("a document is longer or shorter than its place", start)
    return end - 1


def _of_type(fields: dict[str, _Value], name: str, *types: int) -> _Value:
    """Return a field that has to be there, of one of these types."""
    value = fields.get(name)
    if value is None or value.type not in types:
        raise ProtocolError(f"MongoDB's reply has no field {name} of the type it should have")
    return value


def _damaged(what: str, offset: int) -> ProtocolError:
    return ProtocolError(f"MongoDB's reply is damaged: {what} (at byte {offset:,})")
