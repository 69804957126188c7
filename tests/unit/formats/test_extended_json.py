"""The codec against the Go driver, case by case, and what it makes of everything around the body.

How the expectations were made: `tests/data/extjson_cases.json` holds whole events as base64 BSON and, beside each, the
text that `bson.MarshalExtJSON(bson.Raw(event), false, false)` of go.mongodb.org/mongo-driver v1.17.4 gives for it (Go
1.26). `bson.Unmarshal` into a `bson.D` first and marshalling that gives the same. The BSON was put together byte by
byte, because no driver writes some of it. What is compared is parsed JSON, with integers and doubles told apart: Go
spells doubles differently (`1.23E+08`).
"""

import base64
import gc
import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import bson
import pytest
from bson.datetime_ms import DatetimeMS
from bson.raw_bson import RawBSONDocument

from app.domain.errors import EventNotEncodable
from app.formats import extended_json
from tests.encoders import ENCODERS, Encode

CASES = json.loads((Path(__file__).parents[2] / "data" / "extjson_cases.json").read_text(encoding="utf-8"))
TOKEN = "8265A1B2C3000000012B022C0100296E5A1004"

# Where we differ from Go: what Go writes for the field, and what we do. Nothing else may differ.
DIFFERENCES: dict[str, tuple[Any, Any]] = {
    "undefined": ({"$undefined": True}, None),
    "symbol": ({"$symbol": "sym"}, "sym"),
    "regex unknown options": (
        {"$regularExpression": {"pattern": "a", "options": "gi"}},
        {"$regularExpression": {"pattern": "a", "options": "i"}},
    ),
    "regex options twice": (
        {"$regularExpression": {"pattern": "a", "options": "ii"}},
        {"$regularExpression": {"pattern": "a", "options": "i"}},
    ),
    "decimal non-canonical, too many digits": (
        {"$numberDecimal": "10000000000000000000000000000000000"},
        {"$numberDecimal": "0"},
    ),
    "decimal coefficient over the limit": (
        {"$numberDecimal": "10384593717069655257060992658440191"},
        {"$numberDecimal": "0"},
    ),
    "binary subtype 02 old, empty": (
        {"$binary": {"base64": "AAAAAA==", "subType": "02"}},
        {"$binary": {"base64": "", "subType": "02"}},
    ),
}


def strictly(text: str | bytes) -> str:
    """JSON in a form that is equal where the values are: 1, 1.0 and true differ, as do 0.0 and -0.0."""
    return json.dumps(json.loads(text), sort_keys=True)


def event(**fields: Any) -> bytes:
    return bson.encode({"_id": {"_data": TOKEN}, "operationType": "insert", **fields})


def test_the_table_is_whole() -> None:
    names = [case["name"] for case in CASES]
    assert len(names) == len(set(names)) >= 68
    assert set(DIFFERENCES) <= set(names)


@pytest.mark.parametrize("encode", ENCODERS)
@pytest.mark.parametrize("case", [c for c in CASES if c["name"] not in DIFFERENCES], ids=lambda case: case["name"])
def test_equals_the_go_driver(case: dict[str, str], encode: Encode) -> None:
    assert strictly(encode(base64.b64decode(case["bson"]), "").body) == strictly(case["json"])


@pytest.mark.parametrize("encode", ENCODERS)
@pytest.mark.parametrize("case", [c for c in CASES if c["name"] in DIFFERENCES], ids=lambda case: case["name"])
def test_differs_from_the_go_driver_as_documented(case: dict[str, str], encode: Encode) -> None:
    go, ours = DIFFERENCES[case["name"]]
    assert json.loads(case["json"])["fullDocument"]["v"] == go
    assert json.loads(encode(base64.b64decode(case["bson"]), "").body)["fullDocument"]["v"] == ours


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_a_memoryview_encodes_as_bytes_do(case: dict[str, str]) -> None:
    raw = base64.b64decode(case["bson"])
    assert extended_json.encode(memoryview(raw)) == extended_json.encode(raw)


@pytest.mark.parametrize("case", [c for c in CASES if c["name"] not in DIFFERENCES], ids=lambda case: case["name"])
def test_the_exact_route_agrees_with_the_fast_one(case: dict[str, str]) -> None:
    _, body = extended_json.exactly(base64.b64decode(case["bson"]))
    assert strictly(body) == strictly(case["json"])


def test_what_pymongo_hands_out_as_raw_encodes_whatever_its_size() -> None:
    reply = bson.encode({"nextBatch": [RawBSONDocument(event(v="x" * size)) for size in (1, 5_000)]})
    for raw_event in RawBSONDocument(reply)["nextBatch"]:
        assert json.loads(extended_json.encode(raw_event.raw).body)["operationType"] == "insert"


@pytest.mark.parametrize("encode", ENCODERS)
def test_a_big_document_encodes(encode: Encode) -> None:
    text = "Grüße" * 1_500_000
    assert json.loads(encode(event(fullDocument={"v": text}), "").body)["fullDocument"]["v"] == text


@pytest.mark.parametrize("encode", ENCODERS)
def test_a_big_array_of_nan_and_null_encodes(encode: Encode) -> None:
    body = encode(event(fullDocument={"v": [float("nan"), None] * 50_000}), "").body
    assert json.loads(body)["fullDocument"]["v"][:2] == [{"$numberDouble": "NaN"}, None]


@pytest.mark.parametrize("encode", ENCODERS)
def test_the_change_is_named_by_the_event(encode: Encode) -> None:
    change = encode(event(wallTime=datetime(2024, 1, 2, 3, 4, 5, 678000)), "")
    assert (change.token, change.operation, change.id, change.headers) == (TOKEN, "insert", TOKEN, ())
    assert change.wall_time == 1704164645.678


@pytest.mark.parametrize("encode", ENCODERS)
def test_the_id_is_the_token_and_the_suffix(encode: Encode) -> None:
    assert encode(event(), ":3").id == f"{TOKEN}:3"


@pytest.mark.parametrize("encode", ENCODERS)
@pytest.mark.parametrize(
    ("wall", "seconds"),
    [
        (datetime(1970, 1, 1), 0.0),
        (datetime(1969, 12, 31, 23, 59, 59, 500000), -0.5),
        (DatetimeMS(253402300800500), 253402300800.5),
        ("yesterday", 0.0),
        (None, 0.0),
    ],
)
def test_wall_time(wall: Any, seconds: float, encode: Encode) -> None:
    assert encode(event(wallTime=wall), "").wall_time == seconds


def test_the_exact_route_names_the_change_as_well() -> None:
    change = extended_json.encode(event(wallTime=datetime(1970, 1, 2), reference=bson.DBRef("orders", 1)), ":2")
    assert (change.token, change.operation, change.wall_time, change.id) == (TOKEN, "insert", 86400.0, f"{TOKEN}:2")


def not_events() -> Iterator[Any]:
    good = event(fullDocument={"v": 1})
    yield pytest.param(b"", id="nothing")
    yield pytest.param(b"\x05\x00\x00\x00\x00", id="empty document")
    yield pytest.param(good[:-1], id="cut by a byte")
    yield pytest.param(good + b"\0", id="a byte too many")
    yield pytest.param(good + good, id="two documents")
    yield pytest.param(b"\xff\xff\xff\xff" + good[4:], id="length of -1")
    yield pytest.param(good.replace(b"\x10v\x00", b"\x20v\x00"), id="unknown type")
    yield pytest.param(bson.encode({"operationType": "insert"}), id="no _id")
    yield pytest.param(bson.encode({"_id": 1, "operationType": "insert"}), id="_id is no document")
    yield pytest.param(bson.encode({"_id": "x", "operationType": "insert"}), id="_id is a text")
    yield pytest.param(bson.encode({"_id": None, "operationType": "insert"}), id="_id is null")
    yield pytest.param(bson.encode({"_id": {}, "operationType": "insert"}), id="no _data")
    yield pytest.param(bson.encode({"_id": {"_data": b"\x82"}, "operationType": "insert"}), id="_data is binary")
    yield pytest.param(bson.encode({"_id": {"_data": TOKEN}}), id="no operationType")
    yield pytest.param(bson.encode({"_id": {"_data": TOKEN}, "operationType": 1}), id="operationType is a number")
    nested = b"\x05\x00\x00\x00\x00"
    for _ in range(3_000):
        nested = (len(nested) + 8).to_bytes(4, "little") + b"\x03d\x00" + nested + b"\x00"
    yield pytest.param(nested, id="nested 3,000 deep")


@pytest.mark.parametrize("encode", ENCODERS)
@pytest.mark.parametrize("raw", list(not_events()))
def test_what_is_no_event_is_refused(raw: bytes, encode: Encode) -> None:
    with pytest.raises(EventNotEncodable):
        encode(raw, "")


def test_the_refusal_keeps_its_cause() -> None:
    with pytest.raises(EventNotEncodable) as caught:
        extended_json.encode(event()[:-1])
    assert isinstance(caught.value.__cause__, bson.InvalidBSON)


def test_running_out_of_memory_is_no_fault_of_the_event(monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(extended_json, "decode", exhausted)
    with pytest.raises(MemoryError):
        extended_json.encode(event())


def test_a_reduced_event_keeps_what_is_small() -> None:
    small = {
        "clusterTime": bson.Timestamp(1704164645, 1),
        "wallTime": datetime(2024, 1, 2),
        "ns": {"db": "shop", "coll": "orders"},
        "documentKey": {"_id": bson.ObjectId("65a1b2c3d4e5f60718293a4b")},
        "txnNumber": bson.Int64(4),
        "lsid": {"id": b"0123456789abcdef"},
    }
    whole = event(
        **small,
        fullDocument={"v": "x" * 1_000_000},
        fullDocumentBeforeChange={"v": float("nan")},
        updateDescription={"updatedFields": {"v": "x" * 1_000_000}, "removedFields": ["w"], "truncatedArrays": []},
    )
    expected = extended_json.encode(
        event(**small, updateDescription={"removedFields": ["w"], "truncatedArrays": []})
    ).body
    assert strictly(extended_json.reduced(whole)) == strictly(expected)
    assert extended_json.reduced(memoryview(whole)) == extended_json.reduced(whole)


def test_a_reduced_event_leaves_out_any_large_field() -> None:
    body = extended_json.reduced(
        event(documentKey={"_id": "k" * extended_json.FIELD_LIMIT}, ns={"db": "shop", "coll": "orders"})
    )
    assert json.loads(body) == {
        "_id": {"_data": TOKEN},
        "operationType": "insert",
        "ns": {"db": "shop", "coll": "orders"},
    }


def test_a_reduced_event_is_small_even_with_many_fields() -> None:
    body = extended_json.reduced(event(**{f"f{i}": "ü" * 5_000 for i in range(50)}))
    assert extended_json.REDUCED_LIMIT * 0.8 < len(body) <= extended_json.REDUCED_LIMIT
    assert json.loads(body)["operationType"] == "insert"


def test_reducing_what_is_no_document_is_refused() -> None:
    with pytest.raises(EventNotEncodable):
        extended_json.reduced(event()[:-1])


def test_tune_gc_sets_the_measured_thresholds() -> None:
    before = gc.get_threshold()
    try:
        extended_json.tune_gc()
        assert gc.get_threshold() == (100_000, 20, 50)
    finally:
        gc.set_threshold(*before)
