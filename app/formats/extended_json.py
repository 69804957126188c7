"""One change event, from the BSON that MongoDB sends to the relaxed Extended JSON v2 that goes on the stream.

The body equals, after parsing, what the Go driver's `bson.MarshalExtJSON(event, false, false)` gives, so a
consumer of mongodb-nats-connector's messages notices no difference. `encode` is the hot path: one decode and one dump,
both native, with guards for the values these two get wrong; a guard that finds one takes a slower walk that is right.

The native transcoder (`native.py`), if it was built, writes the same bodies faster. `encode` is its reference, and
encodes the events that it leaves.

Known differences from the Go driver, all of them in values that no current driver writes: undefined becomes `null` and
a symbol a plain string; of a regular expression's options only `ilmsux` are kept, each once; a Decimal128 with more
digits than the format allows is 0, as IEEE 754 has it; an empty binary of subtype 2 is empty.
"""

import codecs
import contextlib
import gc
import json
import re
from binascii import b2a_base64
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from math import isfinite
from typing import Any

import orjson
from bson import Binary, Code, DBRef, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp, decode
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.datetime_ms import DatetimeMS
from bson.raw_bson import RawBSONDocument

from app.domain.errors import EventNotEncodable
from app.domain.events import Change

FIELD_LIMIT = 16 * 1024
"""The most JSON, in bytes, that one field of a reduced event may take; a larger one is left out."""
REDUCED_LIMIT = 64 * 1024
"""The most JSON, in bytes, that a reduced event may take: well below NATS's default `max_payload` of 1 MiB."""

_EPOCH = datetime.fromtimestamp(0, UTC).replace(tzinfo=None)  # as pymongo gives dates: in UTC, without saying so
_MILLISECOND = timedelta(milliseconds=1)
_DUMP = orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_SUBCLASS
_IMAGES = frozenset({"fullDocument", "fullDocumentBeforeChange"})

# Only NaN and the infinities have all eleven exponent bits set; the NUL ends the name of the field before a double.
_NON_FINITE = re.compile(rb"\x00.{6}[\xf0-\xff][\x7f\xff]", re.DOTALL)


def encode(raw: bytes | memoryview, id_suffix: str = "") -> Change:
    """The change that a raw event describes.

    `raw` is one whole event as BSON (`RawBSONDocument.raw` fits: a memoryview from 4 kB on). `id_suffix` follows the
    token in the message's id: empty, or `:<epoch>`.

    Raises EventNotEncodable where the bytes are not one BSON document with a token and an operation, or are nested
    deeper than Python can follow (hundreds of levels; MongoDB stores no more than 180).
    """
    try:
        event: Mapping[str, Any] = decode(raw, _OPTIONS)
        body = orjson.dumps(event, default=_tagged, option=_DUMP)
        if b"null" in body and _may_be_non_finite(raw):  # orjson writes NaN and the infinities as null
            body = orjson.dumps(_plain(event), option=_DUMP)
    except MemoryError:
        raise  # passes, and says nothing about the event
    except Exception:  # noqa: BLE001 - a DBRef, deep nesting, bytes that are no BSON: the exact route tells which
        event, body = exactly(raw)
    try:
        token, operation, wall = event["_id"]["_data"], event["operationType"], event.get("wallTime")
    except (KeyError, TypeError) as error:
        raise EventNotEncodable("a change has a resume token (_id._data) and an operationType; this has not") from error
    if type(token) is not str or type(operation) is not str:
        raise EventNotEncodable("a change's resume token (_id._data) and operationType are texts; these are not")
    # orjson leaves its result in the buffer it grew for it, up to eight times the size; a copy is exact, and 0.1 µs.
    return Change(token, operation, b"%b" % body, _seconds(wall), token + id_suffix)


def identify(raw: bytes | memoryview) -> tuple[str, str, str | None]:
    """Token, operation and the document's key (as JSON, where that can be read) of an event that cannot be encoded.

    Reads no more of it than its outermost level. Raises EventNotEncodable where not even that can be read.
    """
    try:
        event = RawBSONDocument(raw, _RAW_OPTIONS)
        token, operation, key = event["_id"]["_data"], event["operationType"], event.get("documentKey")
    except MemoryError:
        raise
    except Exception as error:
        raise EventNotEncodable(f"the event's resume token and operation cannot be read: {error}") from error
    if type(token) is not str or type(operation) is not str:
        raise EventNotEncodable("a change's resume token (_id._data) and operationType are texts; these are not")
    try:
        return token, operation, None if key is None else _dump_plain(_plain(key)).decode()
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - it may be the very part that cannot be read
        return token, operation, None


def names_of(raw: bytes | memoryview) -> tuple[str, str]:
    """Database and collection of an event (`ns`); empty where it has none, as a dropDatabase has no collection.

    Never raises but MemoryError: where an event cannot be read, `encode` says so."""
    try:
        namespace = RawBSONDocument(raw, _RAW_OPTIONS)["ns"]
        names = [namespace.get(part, "") for part in ("db", "coll")]
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - no `ns`, or bytes that are no BSON
        return "", ""
    database, collection = (name if type(name) is str else "" for name in names)
    return database, collection


def reduced(raw: bytes | memoryview, limit: int = REDUCED_LIMIT) -> bytes:
    """The event without what makes events large, as relaxed Extended JSON: what a pointer message carries as its body.

    Left out are `fullDocument`, `fullDocumentBeforeChange`, `updateDescription.updatedFields` and, whatever its name,
    every field that would take more than FIELD_LIMIT or bring the whole above `limit`, at least 2 bytes. What is left
    out is not decoded.

    Raises EventNotEncodable where the bytes are not one BSON document.
    """
    try:
        kept: dict[str, Any] = {}
        room = min(limit, REDUCED_LIMIT) - len(b"{}")
        for name, value in RawBSONDocument(raw, _RAW_OPTIONS).items():
            if name in _IMAGES:
                continue
            if name == "updateDescription" and type(value) is RawBSONDocument:
                field = {key: _plain(part) for key, part in value.items() if key != "updatedFields"}
            else:
                field = _plain(value)
            size = len(_dump_plain({name: field})) - len(b"{}") + len(b",")
            if size <= min(FIELD_LIMIT, room):
                kept[name] = field
                room -= size
        return _dump_plain(kept)
    except MemoryError:
        raise
    except Exception as error:
        raise EventNotEncodable(f"the event cannot be read as BSON: {error}") from error


def tune_gc() -> None:
    """Makes the garbage collector look less often: worth 20 to 45 % of the throughput. `serve` calls it once, when all
    is imported.

    A batch of events keeps many objects alive for a moment and none of them in a cycle; the default thresholds
    (700, 10, 10) have the collector walk them all again and again. What is there by now stays, and is not walked again.
    """
    gc.set_threshold(100_000, 20, 50)
    gc.freeze()
    gc.enable()


def exactly(raw: bytes | memoryview) -> tuple[RawBSONDocument, bytes]:
    """Event and body by the slow way, level by level: so pymongo makes no DBRef of a document that looks like one.

    Takes about five times as long as the fast route. Raises EventNotEncodable.
    """
    try:
        event = RawBSONDocument(raw, _RAW_OPTIONS)
        return event, _dump_plain(_plain(event))
    except MemoryError:
        raise
    except Exception as error:
        # pymongo answers hostile bytes with more than InvalidBSON: RecursionError, OverflowError, ValueError, TypeError
        raise EventNotEncodable(f"the event cannot be read as BSON: {error}") from error


def _may_be_non_finite(raw: bytes | memoryview) -> bool:
    """Whether the event may hold a NaN or an infinity; never wrong where it denies it."""
    data = bytes(raw)  # a memoryview has no fast search
    return (b"\x7f" in data or b"\xff" in data) and _NON_FINITE.search(data) is not None


def _dump_plain(value: Any) -> bytes:
    """JSON of what `_plain` made, by orjson, so that a number is written the same on every route. Where that stops, at
    254 levels, as deep as Python's own recursion goes."""
    with contextlib.suppress(orjson.JSONEncodeError):
        return orjson.dumps(value, option=_DUMP)
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _plain(value: Any) -> Any:
    """The value in plain JSON types throughout, every other type in its Extended JSON form."""
    kind = type(value)
    if kind is dict or kind is RawBSONDocument:
        return {name: _plain(field) for name, field in value.items()}
    if kind is list:
        return [_plain(item) for item in value]
    if kind is float:
        return value if isfinite(value) else {"$numberDouble": _NON_FINITE_NAMES[str(value)]}
    if kind is Code:
        return {name: _plain(field) for name, field in _code(value).items()}
    if kind is DBRef:  # what is left of a DBPointer; a document in a DBRef's form stays a document on the exact route
        return {"$dbPointer": {"$ref": value.collection, "$id": _oid(value.id)}}
    form = _FORMS.get(kind)
    return value if form is None else form(value)


def _tagged(value: Any) -> Any:
    """The Extended JSON form of a value that JSON has no type for: orjson's `default`. Raises KeyError for a DBRef."""
    return _FORMS[type(value)](value)


def _oid(value: ObjectId) -> dict[str, Any]:
    return {"$oid": value.binary.hex()}


def _date(value: datetime) -> dict[str, Any]:
    if value.year < 1970:
        return {"$date": {"$numberLong": str((value - _EPOCH) // _MILLISECOND)}}
    if value.microsecond:  # Go trims the zeros at the end of the fraction
        return {"$date": value.isoformat(timespec="milliseconds").rstrip("0") + "Z"}
    return {"$date": value.isoformat() + "Z"}


def _distant_date(value: DatetimeMS) -> dict[str, Any]:
    return {"$date": {"$numberLong": str(int(value))}}


def _binary(value: bytes) -> dict[str, Any]:
    subtype = value.subtype if isinstance(value, Binary) else 0
    return {"$binary": {"base64": b2a_base64(value, newline=False).decode(), "subType": f"{subtype:02x}"}}


def _regex(value: Regex[str]) -> dict[str, Any]:
    options = "".join(letter for letter, flag in _REGEX_FLAGS if value.flags & flag)
    return {"$regularExpression": {"pattern": value.pattern, "options": options}}


def _code(value: Code) -> dict[str, Any]:
    return {"$code": str(value)} if value.scope is None else {"$code": str(value), "$scope": value.scope}


def _seconds(wall: Any) -> float:
    """`wallTime` in seconds since 1970, 0.0 where it is absent or no date."""
    if type(wall) is datetime:
        return (wall - _EPOCH).total_seconds()
    return int(wall) / 1000 if type(wall) is DatetimeMS else 0.0


def _replace_each_byte(error: UnicodeError) -> tuple[str, int]:
    """One replacement character per invalid byte, as in Go; Python's own `replace` puts one per cut sequence."""
    assert isinstance(error, UnicodeDecodeError)
    return "\ufffd" * (error.end - error.start), error.end


codecs.register_error("changewire.replace_each_byte", _replace_each_byte)

_OPTIONS: CodecOptions[Mapping[str, Any]] = CodecOptions(
    datetime_conversion=DatetimeConversion.DATETIME_AUTO,
    unicode_decode_error_handler="changewire.replace_each_byte",
)
_RAW_OPTIONS: CodecOptions[RawBSONDocument] = _OPTIONS.with_options(document_class=RawBSONDocument)
_NON_FINITE_NAMES = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
# Bits as pymongo reads them from BSON, letters in the alphabetical order that Extended JSON wants.
_REGEX_FLAGS = (
    ("i", re.IGNORECASE),
    ("l", re.LOCALE),
    ("m", re.MULTILINE),
    ("s", re.DOTALL),
    ("u", re.UNICODE),
    ("x", re.VERBOSE),
)

_FORMS: dict[type, Callable[[Any], Any]] = {
    ObjectId: _oid,
    datetime: _date,
    DatetimeMS: _distant_date,
    Int64: int,
    Timestamp: lambda value: {"$timestamp": {"t": value.time, "i": value.inc}},
    bytes: _binary,
    Binary: _binary,
    Decimal128: lambda value: {"$numberDecimal": str(value)},
    Regex: _regex,
    Code: _code,
    MinKey: lambda value: {"$minKey": 1},
    MaxKey: lambda value: {"$maxKey": 1},
}
"""How relaxed Extended JSON writes what JSON has no type for (MongoDB's specification "Extended JSON", version 2)."""
