"""What `changewire verify` takes for equal, how it compares with a list of writes, and what it prints."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bson.raw_bson import RawBSONDocument

from app.domain.gap import Gap
from app.domain.watcher import Source, Watcher
from app.formats.extended_json import encode
from app.verify.bodies import RAW, Selection, from_bson, from_json, text_of
from app.verify.errors import BadList
from app.verify.findings import Finding, Findings
from app.verify.report import Report, seconds_of
from app.verify.rows import Reading, Rows
from app.verify.streams import StreamMessage
from app.verify.writes import Write, compare_writes, read_writes
from tests.fakes import event_token, mark_token

CASES = json.loads((Path(__file__).parents[2] / "data" / "extjson_cases.json").read_text(encoding="utf-8"))
WATCHER = Watcher("orders", Source("shop", "orders")).with_defaults()


def event(operation: str = "insert", key: Any = 1, **fields: Any) -> dict[str, Any]:
    return {
        "_id": {"_data": "82" + "0" * 16},
        "operationType": operation,
        "ns": {"db": "shop", "coll": "orders"},
        "documentKey": {"_id": key},
        **fields,
    }


def rows() -> Rows:
    async def whole(message: StreamMessage) -> dict[str, Any]:
        return message.event

    async def removed(sequence: int) -> bool:
        return False

    return Rows(Reading(WATCHER.subjects.subject, whole, removed))


def selection(*pipeline: dict[str, Any], **source: Any) -> Selection:
    return Selection(Source("shop", "orders", pipeline=pipeline, **source))


# Bodies


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_what_the_service_writes_equals_what_is_read_here(case: dict[str, str]) -> None:
    raw = base64.b64decode(case["bson"])
    assert text_of(from_bson(RawBSONDocument(raw, RAW))) == text_of(from_json(encode(raw).body))


@pytest.mark.parametrize(
    ("then", "named"),
    [
        ({"fullDocument": {"a": 1, "b": 2}}, None),
        ({"fullDocument": {"b": 2, "a": 1}}, None),
        ({"fullDocument": {"a": 1.0, "b": 2}}, "fullDocument.a"),
        ({"fullDocument": {"a": True, "b": 2}}, "fullDocument.a"),
        ({"fullDocument": {"a": 1}}, "fullDocument.b"),
        ({"fullDocument": {"a": 1, "b": None}}, "fullDocument.b"),
        ({"fullDocument": None}, "fullDocument"),
        ({}, "fullDocument"),
        ({"fullDocument": {"a": 1, "b": 2}, "documentKey": {"_id": 2}}, "documentKey._id"),
        ({"fullDocument": {"a": 1, "b": 2}, "more": 1}, "more"),
        ({"fullDocument": {"a": 1, "b": 2}, "fullDocumentBeforeChange": {"a": 0}}, None),
        ({"a": 1, "b": 2, "c": 3, "fullDocument": {}}, "fullDocument.a, fullDocument.b, a, …"),
    ],
)
def test_differences_are_named(then: dict[str, Any], named: str | None) -> None:
    now = event(fullDocument={"a": 1, "b": 2})
    assert selection().difference(now, {**event(), **then}) == named


def test_what_was_looked_up_for_an_update_is_not_compared_and_its_description_is() -> None:
    now = event("update", updateDescription={"updatedFields": {"n": 2}}, fullDocument={"n": 9})
    assert selection().difference(now, {**now, "fullDocument": None}) is None
    assert selection().difference(now, {**now, "updateDescription": {"updatedFields": {}}}) == (
        "updateDescription.updatedFields"
    )


def test_fields_of_a_pipeline_that_sees_documents_are_not_compared() -> None:
    made = selection({"$set": {"total": "$fullDocument.total"}})
    assert made.difference(event("update", total=1), event("update", total=2)) is None
    assert selection({"$set": {"x": 1}}).difference(event("update", x=1), event("update", x=2)) == "x"


@pytest.mark.parametrize(
    ("pipeline", "undecidable"),
    [
        ([], set()),
        ([{"$match": {"operationType": "insert"}}], set()),
        ([{"$match": {"fullDocument.n": 1}}], {"update"}),
        ([{"$match": {"operationType": "insert"}}, {"$unset": "fullDocument"}], set()),
        ([{"$set": {"n": "$fullDocument.n"}}, {"$match": {"n": 1}}], {"update"}),
        ([{"$match": {"fullDocumentBeforeChange.n": 1}}], {"update", "replace", "delete"}),
    ],
)
def test_a_choice_by_documents_of_then_cannot_be_judged(pipeline: list[dict[str, Any]], undecidable: set[str]) -> None:
    assert selection(*pipeline).undecidable == undecidable


def test_a_pipeline_sees_no_document_where_none_is_looked_up() -> None:
    by_document = {"$match": {"fullDocument.n": 1, "fullDocumentBeforeChange.n": 2}}
    assert selection(by_document, full_document=None, full_document_before_change=None).undecidable == set()


# Messages


def test_a_marker_says_between_which_moments_changes_are_missing() -> None:
    def marker(reason: str) -> StreamMessage:
        gap = Gap(reason, event_token(1), mark_token(60), 1).marker(WATCHER)  # type: ignore[arg-type]
        return StreamMessage(WATCHER, 7, "ORDERS.gap", {"Nats-Msg-Id": gap.id, **dict(gap.headers)}, gap.body)

    lost, recreated = marker("history_lost"), marker("stream_recreated")
    assert (lost.token, lost.gap, lost.epoch) == (mark_token(60), event_token(1), 1)
    assert str(lost) == (
        "a gap (history_lost): changes after 2023-11-14T22:13:21Z, before 2023-11-14T22:14:20Z are missing"
    )
    assert recreated.gap == ""
    assert str(recreated) == "a gap (stream_recreated): changes before 2023-11-14T22:14:20Z are missing"


async def test_a_list_of_writes_says_that_there_is_a_gap() -> None:
    gap = Gap("history_lost", event_token(1), mark_token(60), 1).marker(WATCHER)

    async def messages() -> AsyncIterator[StreamMessage]:
        yield StreamMessage(WATCHER, 7, "ORDERS.gap", {"Nats-Msg-Id": gap.id}, gap.body)

    findings = await compare_writes(messages(), [Write(1, "insert", 1)], WATCHER, rows())
    assert findings.faults["lost"].total == 1
    assert findings.skipped == {}
    (note,) = findings.notes
    assert note.startswith("#7 is a gap")


@pytest.mark.parametrize(
    ("id_", "body", "own"),
    [
        ("82" + "0" * 16, event(), True),
        ("82" + "0" * 16 + ":3", event(), True),
        ("82" + "0" * 16, {"_id": {}, "operationType": "invalidate"}, True),
        ("82" + "0" * 16 + ":3:r:gap", event("gap"), True),
        ("82" + "0" * 16 + ":3:r:82" + "1" * 16, event(), True),
        ("82" + "0" * 16 + ":3:r:something", event(), False),
        ("something", event(), False),
        (None, event(), False),
        ("82" + "0" * 16, event(ns={"db": "shop", "coll": "others"}), False),
    ],
)
def test_whose_a_message_is(id_: str | None, body: dict[str, Any], own: bool) -> None:
    headers = {} if id_ is None else {"Nats-Msg-Id": id_}
    message = StreamMessage(WATCHER, 1, "ORDERS.insert", headers, json.dumps(body).encode())
    assert (message.token is not None) == own


def test_a_message_that_is_no_json_is_still_told_of() -> None:
    message = StreamMessage(WATCHER, 1, "ORDERS.insert", {"Nats-Msg-Id": "82" + "0" * 16}, b"\xff[1]")
    assert (message.token is not None, str(message)) == (True, "message")


# Lists of writes


def write(line: int, operation: str, key: Any = 1, *, uncertain: bool = False, **fields: Any) -> Write:
    return Write(line, operation, key, fields, uncertain)


def insert(key: Any = 1, **fields: Any) -> dict[str, Any]:
    return event("insert", key, fullDocument={"_id": key, **fields})


def update(key: Any = 1, **fields: Any) -> dict[str, Any]:
    return event("update", key, updateDescription={"updatedFields": fields})


def compared(writes: list[Write], *events: dict[str, Any], epochs: str = "") -> dict[str, list[str]]:
    """The faults of a stream with these events, as they are said; `epochs` has a digit for each event."""

    async def stream() -> AsyncIterator[StreamMessage]:
        for index, one in enumerate(events):
            epoch = epochs[index] if epochs else "0"
            headers = {"Nats-Msg-Id": f"82{index:016X}:{epoch}"}
            yield StreamMessage(WATCHER, index + 1, "ORDERS.x", headers, json.dumps(one).encode())

    fresh = [replace(one) for one in writes]
    findings = asyncio.run(compare_writes(stream(), fresh, WATCHER, rows()))
    return {kind: [one.what for one in found.first] for kind, found in findings.faults.items() if found.total}


LIST = [write(1, "insert", n=1), write(2, "update", n=2), write(3, "insert", 2), write(4, "delete"), write(5, "insert")]
EVENTS = [insert(n=1), insert(2), update(n=2), event("delete"), insert(n=5)]


def test_each_write_once_in_the_order_of_its_document() -> None:
    assert compared(LIST, *EVENTS) == {}


def test_each_fault_against_a_list() -> None:
    assert compared(LIST, *EVENTS[:2], *EVENTS[3:]) == {"lost": ['line 2: update 1 {"n": 2}']}
    assert compared(LIST, *EVENTS, EVENTS[0]) == {"doubled": ['line 1: insert 1 {"n": 1} was there before']}
    swapped = [EVENTS[0], EVENTS[1], EVENTS[3], EVENTS[2], EVENTS[4]]
    assert compared(LIST, *swapped) == {
        "reordered": ['line 2: update 1 {"n": 2} comes after a later one of its document']
    }
    assert [*compared(LIST[:4], insert(n=7), *EVENTS[1:4])] == ["lost"]


def test_a_rewind_is_no_fault_of_a_list_and_a_double_within_an_epoch_is() -> None:
    assert compared(LIST, *EVENTS, *EVENTS[2:], epochs="00000111") == {}
    assert [*compared(LIST, *EVENTS, EVENTS[2], EVENTS[2], epochs="0000011")] == ["doubled"]


def test_an_uncertain_write_may_be_missing_and_one_that_is_not_published_is_not_expected() -> None:
    assert compared([write(1, "insert"), write(2, "insert", 2, uncertain=True), write(3, "drop", 3)], insert()) == {}


def test_ids_are_compared_as_extended_json(tmp_path: Path) -> None:
    path = tmp_path / "writes.jsonl"
    path.write_text('{"operation": "insert", "id": {"$date": "2026-01-01T00:00:00.500Z"}}\n\n', encoding="utf-8")
    assert compared(read_writes(path), insert({"$date": "2026-01-01T00:00:00.5Z"})) == {}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("nonsense", "line 2 is not an object"),
        ("[]", "line 2 is not an object"),
        ('{"operation": "insert"}', "line 2 is not an object"),
        ('{"id": 1}', "line 2 is not an object"),
        ('{"operation": "insert", "id": 1, "n": 1}', "line 2 has n, which is not one of"),
        ('{"operation": "insert", "id": 1, "fields": 1}', "line 2 has fields that are not an object"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "writes.jsonl"
    path.write_text(f'{{"operation": "insert", "id": 1}}\n{line}\n')
    with pytest.raises(BadList, match=said):
        read_writes(path)


def test_a_list_that_cannot_be_read_is_misuse(tmp_path: Path) -> None:
    for path, content in ((tmp_path / "absent", None), (tmp_path / "binary", b"\xff\xfe")):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(BadList, match="cannot be read"):
            read_writes(path)


# The report


def test_at_most_twenty_findings_are_printed_and_all_are_counted() -> None:
    findings = Findings(compared=3)
    for number in range(1_200):
        findings.faults["doubled"].add(Finding(f"82{number:016X}", "insert 1: was there before", 2, number))
    lines = Report("orders", "shop.orders", "ORDERS", "the history of shop.orders", findings, 0, 60).lines()
    assert lines[0].endswith("1970-01-01T00:00:00Z to 1970-01-01T00:01:00Z")
    assert sum("was there before (epoch 2)" in line for line in lines) == 20
    assert lines[-2:] == ["  … and 1,180 more", "WRONG: 1,200 doubled"]
    assert (findings.faults["doubled"].total, len(findings.faults["doubled"].first)) == (1_200, 1_000)


def test_the_verdict_of_a_right_stream() -> None:
    for count, said in ((0, "OK: nothing could be compared"), (1, "OK: 1 change, once")):
        assert Report("orders", "s", "S", "h", Findings(compared=count)).lines()[-1] == said


def test_seconds_of_a_token_and_of_its_beginning() -> None:
    assert (seconds_of("820000000A00000001"), seconds_of("820000000A000000012B02"), seconds_of("")) == (10, 10, None)
