"""A cursor's reply read from its bytes: what pymongo would read, and a clear error for damage wherever it is."""

from itertools import pairwise
from typing import Any

import bson
import pytest
from bson import Binary, Code, DBRef, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from hypothesis import given
from hypothesis import strategies as st
from pymongo.errors import ProtocolError

from app.mongodb.raw_reply import read_documents, read_reply

LONG = Int64(1 << 40)
EVERY_TYPE = {
    "double": 1.5, "text": "t", "document": {"a": 1}, "array": [1, 2], "binary": Binary(b"b", 5), "id": ObjectId(),
    "true": True, "date": bson.decode(bson.encode({"d": 0}))["d"], "null": None, "regex": Regex("a.c", "im"),
    "code": Code("x"), "scoped": Code("x", {"y": 1}), "int": 1, "timestamp": Timestamp(1, 2), "long": Int64(1 << 40),
    "decimal": Decimal128("1.5"), "min": MinKey(), "max": MaxKey(), "reference": DBRef("c", 1), "empty": "",
}  # fmt: skip


def reply(*events: Any, batch: str = "nextBatch", cursor: Any = LONG, **more: Any) -> bytes:
    inner = {"postBatchResumeToken": {"_data": "82AB"}, batch: list(events), "id": cursor, "ns": "shop.orders"}
    return bson.encode({"cursor": inner, "ok": 1.0, "operationTime": Timestamp(77, 3), **more})


def test_it_finds_cursor_events_token_and_time() -> None:
    events = [{"_id": number, "text": "x" * number} for number in range(1_234)]
    came = read_reply(reply(*events), "nextBatch")
    assert (came.cursor, came.token, came.operation_time) == (1 << 40, "82AB", 77)
    assert came.events == [bson.encode(event) for event in events]
    assert came.events.size == sum(len(bson.encode(event)) for event in events)


def test_an_empty_batch_and_a_cursor_that_has_ended() -> None:
    came = read_reply(reply(batch="firstBatch", cursor=0), "firstBatch")
    assert came.cursor == 0
    assert came.events == []


def test_values_of_every_type_beside_it_are_passed_over() -> None:
    raw = bson.encode({**EVERY_TYPE, "last": 1})
    raw = len(raw).to_bytes(4, "little") + raw[4:]
    symbol = b"\x0es\x00\x02\x00\x00\x00a\x00"
    pointer = b"\x0cp\x00\x02\x00\x00\x00a\x00" + bytes(12)
    undefined = b"\x06u\x00"
    fields = raw[4:-1] + symbol + pointer + undefined
    whole = reply({"_id": 1})
    body = fields + whole[4:-1]
    whole = (len(body) + 5).to_bytes(4, "little") + body + b"\x00"
    assert read_reply(whole, "nextBatch").events == [bson.encode({"_id": 1})]


NAMES = st.text("abc", min_size=1, max_size=3)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 63) - 1) | st.text(max_size=20) | st.binary(max_size=20)
    | st.sampled_from(list(EVERY_TYPE.values())),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=10,
)  # fmt: skip
documents = st.dictionaries(NAMES, values, max_size=4)
replies = st.builds(
    lambda events, more: reply(*events, **{f"x{name}": value for name, value in more.items()}),
    st.lists(documents, max_size=120),
    documents,
)


@given(replies)
def test_it_reads_what_pymongo_reads(raw: bytes) -> None:
    options: CodecOptions[RawBSONDocument] = CodecOptions(document_class=RawBSONDocument)
    expected = bson.decode(raw, options)
    came = read_reply(raw, "nextBatch")
    assert came.events == [bytes(event.raw) for event in expected["cursor"]["nextBatch"]]
    assert came.cursor == expected["cursor"]["id"]
    assert came.token == expected["cursor"]["postBatchResumeToken"]["_data"]
    assert came.operation_time == expected["operationTime"].time


@given(replies, st.data())
def test_a_damaged_byte_is_refused_or_changes_no_bounds_beyond_the_reply(raw: bytes, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(raw) - 1))
    damaged = raw[:place] + bytes([data.draw(st.integers(0, 255))]) + raw[place + 1 :]
    try:
        came = read_reply(damaged, "nextBatch")
    except ProtocolError:
        return
    bounds = list(zip(came.events.starts, came.events.ends, strict=True))
    assert all(0 < start < end < len(raw) for start, end in bounds)
    assert all(before[1] < after[0] for before, after in pairwise(bounds))


@given(st.binary(max_size=60))
def test_any_bytes_are_refused(raw: bytes) -> None:
    with pytest.raises(ProtocolError):
        read_reply(raw, "nextBatch")


def test_a_reply_that_is_cut_anywhere_is_refused() -> None:
    whole = reply({"_id": 1}, {"_id": 2})
    for length in range(len(whole)):
        with pytest.raises(ProtocolError, match="MongoDB's reply"):
            read_reply(whole[:length], "nextBatch")
        cut = length.to_bytes(4, "little") + whole[4:length]
        with pytest.raises(ProtocolError, match="MongoDB's reply"):
            read_reply(cut, "nextBatch")


@pytest.mark.parametrize(
    "raw",
    [
        bson.encode({"ok": 1.0}),
        bson.encode({"cursor": 1, "operationTime": Timestamp(1, 1)}),
        reply(batch="firstBatch"),
        reply(cursor="1"),
        reply("no document"),
        reply({"_id": 1}, 2),
    ],
    ids=[
        "no cursor",
        "a number for it",
        "another batch",
        "a text for the id",
        "a text for an event",
        "a number for one",
    ],
)
def test_what_is_no_reply_of_a_change_stream_is_refused(raw: bytes) -> None:
    with pytest.raises(ProtocolError):
        read_reply(raw, "nextBatch")


@given(st.lists(st.dictionaries(st.text("ab", min_size=1), st.integers(0, 9)), max_size=120))
def test_the_documents_of_a_find_are_found_in_its_reply(documents: list[dict[str, Any]]) -> None:
    whole = bson.encode({"cursor": {"firstBatch": documents, "id": Int64(7), "ns": "shop.orders"}, "ok": 1.0})
    found, cursor = read_documents(whole)
    assert ([bson.decode(each) for each in found], cursor) == (documents, 7)
    with pytest.raises(ProtocolError, match="no field firstBatch"):
        read_documents(bson.encode({"cursor": {"nextBatch": documents}}))
