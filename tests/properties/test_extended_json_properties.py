"""What the codec promises for any event, not only those in the table of cases.

- A document encodes as `bson.json_util` does it in its relaxed mode, which shares neither table nor dump with the
  codec. Two things are taken out of the comparison: json_util keeps the zeros at the end of a date's milliseconds, and
  pymongo makes a DBRef of a document that looks like one (so json_util is given documents decoded level by level).
- Whatever BSON allows encodes to JSON without NaN, Infinity or lone surrogates.
- Bytes that are cut, changed or made up raise EventNotEncodable and nothing else.
- A reduced event is small and says nothing that the whole one does not.
"""

import contextlib
import json
import re
import struct
from typing import Any

import bson
import pytest
from bson import Binary, Code, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp, json_util
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.datetime_ms import DatetimeMS
from bson.raw_bson import RawBSONDocument
from hypothesis import given
from hypothesis import strategies as st

from app.domain.errors import EventNotEncodable
from app.formats import extended_json
from tests.encoders import ENCODERS, Encode, needs_native, transcode

TOKEN = "8265A1B2C3000000012B022C0100296E5A1004"
REFERENCE: CodecOptions[RawBSONDocument] = CodecOptions(
    document_class=RawBSONDocument, datetime_conversion=DatetimeConversion.DATETIME_MS
)

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    ["null", "\0", "a\0b", '"', "\\", "\u2028", "😀", "NaN", "2020-01-01T00:00:00.100Z"]
)
names = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=6),
    st.sampled_from(["$ref", "$id", "$db", "$oid", "$date", "$numberLong", "$code", "$scope", "_id", "a.b", "null"]),
)
int64s = st.integers(-(2**63), 2**63 - 1) | st.sampled_from([-1, 2**31, -(2**31), 2**53 + 1, 2**63 - 1, -(2**63)])
dates = int64s | st.integers(-62135596800001, 253402300800000) | st.sampled_from([-1, 0, 1, 10, 100, 500, 1000])
decimals = st.binary(min_size=16, max_size=16).map(Decimal128.from_bid)
binaries = st.binary(max_size=20)
# Code, Int64 and Binary are classes of str, int and bytes. Hypothesis may take a drawn one for what it was made of, and
# then fails by itself: where it has to make a plain one of it first, it does not.
leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.floats(),
    st.sampled_from([float("nan"), float("inf"), float("-inf"), -0.0, 5e-324, 1e16, 1e22]),
    st.integers(-(2**31), 2**31 - 1).map(int),
    int64s.map(Int64),
    text.map(str),
    dates.map(DatetimeMS),
    st.binary(min_size=12, max_size=12).map(ObjectId),
    binaries.map(bytes),
    st.builds(Binary, binaries, st.sampled_from([1, 2, 3, 4, 5, 6, 7, 8, 128, 255])),
    st.builds(Timestamp, st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)),
    decimals,
    st.builds(
        Regex,
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=6),
        st.text("imsux", max_size=5),
    ),
    text.map(Code),
    st.sampled_from([MinKey(), MaxKey()]),
)


def containers(children: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    documents = st.dictionaries(names, children, max_size=5)
    return st.one_of(
        st.lists(children, max_size=5),
        documents,
        st.builds(Code, text, documents),
        st.fixed_dictionaries({"$ref": text, "$id": children}, optional={"$db": st.none() | text, "x": children}),
    )


values = st.recursive(leaves, containers, max_leaves=30)
documents = st.dictionaries(names, values, max_size=6)


def event(document: Any) -> bytes:
    return bson.encode({"_id": {"_data": TOKEN}, "operationType": "insert", "fullDocument": document})


def comparable(value: Any) -> Any:
    """Parsed JSON without the zeros at the end of a date's milliseconds."""
    if isinstance(value, dict):
        if list(value) == ["$date"] and isinstance(value["$date"], str):
            return {"$date": re.sub(r"\.?0+Z$", "Z", value["$date"]) if "." in value["$date"] else value["$date"]}
        return {name: comparable(field) for name, field in value.items()}
    return [comparable(item) for item in value] if isinstance(value, list) else value


def strictly(parsed: Any) -> str:
    return json.dumps(comparable(parsed), sort_keys=True)


def refuse_constant(name: str) -> Any:
    raise AssertionError(f"{name} is no JSON")


@pytest.mark.parametrize("encode", ENCODERS)
@given(document=documents)
def test_equals_json_util(document: dict[str, Any], encode: Encode) -> None:
    raw = event(document)
    reference = json_util.dumps(bson.decode(raw, REFERENCE), json_options=json_util.RELAXED_JSON_OPTIONS)
    assert strictly(json.loads(encode(raw, "").body)) == strictly(json.loads(reference))


def element(kind: int, name: bytes, payload: bytes) -> bytes:
    return bytes([kind]) + name + b"\0" + payload


def string(content: bytes) -> bytes:
    return struct.pack("<i", len(content) + 1) + content + b"\0"


def document_of(elements: list[bytes]) -> bytes:
    body = b"".join(elements)
    return struct.pack("<i", len(body) + 5) + body + b"\0"


def scoped(parts: tuple[bytes, bytes]) -> bytes:
    code, scope = parts
    return struct.pack("<i", 4 + len(string(code)) + len(scope)) + string(code) + scope


any_bytes = st.binary(max_size=10) | st.sampled_from([b"\xe2\x82", b"\xed\xa0\x80", b"\xf0\x9f\x98", b"\xc0\x80"])
c_strings = any_bytes.map(lambda content: content.replace(b"\0", b""))
eight = st.binary(min_size=8, max_size=8) | st.sampled_from([b"\0" * 6 + tail for tail in (b"\xf8\x7f", b"\xf0\xff")])
strings = any_bytes.map(string)
payloads: st.SearchStrategy[tuple[int, bytes]] = st.one_of(
    st.tuples(st.sampled_from([1, 9, 17, 18]), eight),
    st.tuples(st.sampled_from([2, 13, 14]), strings),
    st.tuples(st.sampled_from([6, 10, 127, 255]), st.just(b"")),
    st.tuples(st.just(5), st.tuples(st.integers(0, 255).filter(lambda subtype: subtype != 2), any_bytes)).map(
        lambda it: (5, struct.pack("<iB", len(it[1][1]), it[1][0]) + it[1][1])
    ),
    st.tuples(st.just(8), st.sampled_from([b"\0", b"\1"])),
    st.tuples(st.just(11), st.tuples(c_strings, c_strings).map(lambda parts: b"\0".join(parts) + b"\0")),
    st.tuples(st.just(12), st.tuples(strings, st.binary(min_size=12, max_size=12)).map(b"".join)),
    st.tuples(st.just(16), st.binary(min_size=4, max_size=4)),
    st.tuples(st.just(19), st.binary(min_size=16, max_size=16)),
)


def nested_payloads(children: st.SearchStrategy[tuple[int, bytes]]) -> st.SearchStrategy[tuple[int, bytes]]:
    fields = st.tuples(c_strings | st.sampled_from([b"$ref", b"$id", b"$db"]), children)
    body = st.lists(fields.map(lambda field: element(field[1][0], field[0], field[1][1])), max_size=5).map(document_of)
    return st.tuples(st.sampled_from([3, 4]), body) | st.tuples(st.just(15), st.tuples(any_bytes, body).map(scoped))


raw_values = st.recursive(payloads, nested_payloads, max_leaves=20)


def event_of(fields: list[tuple[bytes, tuple[int, bytes]]]) -> bytes:
    return document_of(
        [
            element(3, b"_id", document_of([element(2, b"_data", string(TOKEN.encode()))])),
            element(2, b"operationType", string(b"insert")),
            element(3, b"fullDocument", document_of([element(kind, name, value) for name, (kind, value) in fields])),
        ]
    )


@pytest.mark.parametrize("encode", ENCODERS)
@given(fields=st.lists(st.tuples(c_strings, raw_values), max_size=5))
def test_whatever_bson_allows_encodes(fields: list[tuple[bytes, tuple[int, bytes]]], encode: Encode) -> None:
    raw = event_of(fields)
    change = encode(raw, "")
    parsed = json.loads(change.body.decode("utf-8"), parse_constant=refuse_constant)
    assert set(parsed) == {"_id", "operationType", "fullDocument"}
    assert set(parsed["fullDocument"]) == {name.decode("utf-8", "changewire.replace_each_byte") for name, _ in fields}
    assert json.loads(extended_json.exactly(raw)[1]) == parsed


def exactly(parsed: Any) -> str:
    return json.dumps(parsed, sort_keys=True)


def agree(raw: bytes) -> None:
    """What the native transcoder makes of the bytes is what the reference makes of them."""
    (made,) = transcode([raw])
    if made is None:
        return
    change = extended_json.encode(raw)
    assert (made.token, made.operation, made.id) == (change.token, change.operation, change.id)
    assert repr(made.wall_time) == repr(change.wall_time)
    assert exactly(json.loads(made.body)) == exactly(json.loads(change.body))


@needs_native
@given(document=documents)
def test_native_and_reference_write_the_same_bytes(document: dict[str, Any]) -> None:
    raw = event(document)
    (made,) = transcode([raw])
    if (
        made is not None and b'"$ref"' not in made.body
    ):  # the exact route of the reference spells some doubles otherwise
        assert made == extended_json.encode(raw)


@needs_native
@given(fields=st.lists(st.tuples(c_strings, raw_values), max_size=5))
def test_native_and_reference_agree_on_whatever_bson_allows(fields: list[tuple[bytes, tuple[int, bytes]]]) -> None:
    agree(event_of(fields))


@needs_native
@given(first=st.binary(max_size=60), last=documents)
def test_a_bad_event_is_left_out_for_itself_alone(first: bytes, last: dict[str, Any]) -> None:
    good = event(last)
    assert transcode([good, first, good]) == [*transcode([good]), None, *transcode([good])]


def only_refuses(raw: bytes) -> None:
    for use in (extended_json.encode, extended_json.reduced):
        with contextlib.suppress(EventNotEncodable):
            use(raw)
    agree(raw)


@given(documents, st.data())
def test_cut_or_changed_bytes_are_at_most_refused(document: dict[str, Any], data: st.DataObject) -> None:
    raw = bytearray(event(document))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at] = data.draw(st.integers(0, 255) | st.sampled_from([0, 1, 3, 4, 5, 12, 15, 127, 128, 255]))
    cut = data.draw(st.integers(0, len(raw)))
    only_refuses(bytes(raw))
    only_refuses(bytes(raw[:cut]))
    only_refuses(struct.pack("<i", cut) + bytes(raw[4:cut]))  # a length that fits, and an end that does not


@given(st.binary(max_size=200))
def test_made_up_bytes_are_at_most_refused(raw: bytes) -> None:
    only_refuses(raw)
    only_refuses(struct.pack("<i", len(raw) + 5) + raw + b"\0")


@given(documents, documents, st.integers(0, 30_000))
def test_a_reduced_event_is_small_and_true(update: dict[str, Any], extra: dict[str, Any], key_size: int) -> None:
    whole = {
        "_id": {"_data": TOKEN},
        "operationType": "update",
        "documentKey": {"_id": "k" * key_size},
        "fullDocument": extra,
        "updateDescription": {"updatedFields": update, "removedFields": list(update)},
    }
    raw = bson.encode({**whole, **{f"x{name}": field for name, field in extra.items()}})
    body = extended_json.reduced(raw)
    assert len(body) <= extended_json.REDUCED_LIMIT
    kept, parsed = json.loads(body), json.loads(extended_json.encode(raw).body)
    assert kept["_id"] == parsed["_id"]
    assert "fullDocument" not in kept
    del parsed["updateDescription"]["updatedFields"]
    assert all(strictly(parsed[name]) == strictly(field) for name, field in kept.items())
    assert ("documentKey" in kept) == (key_size + len('{"documentKey":{"_id":""}}') - 1 <= extended_json.FIELD_LIMIT)
