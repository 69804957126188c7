"""What `changewire verify` finds of a snapshot's rows: streams as they should be and as they should not."""

import asyncio
import json
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from app.domain.tokens import MessageId, RowPlace, moment_before
from app.domain.watcher import Source, Watcher
from app.verify.comparison import Bounds, Comparison, Event
from app.verify.documents import Document, Documents
from app.verify.findings import Findings
from app.verify.report import Report
from app.verify.rows import Reading, Record, Rows
from app.verify.streams import StreamMessage
from tests.fakes import event_token, mark_token

WATCHER = Watcher("orders", Source("shop", "orders")).with_defaults()
RUN = "0123456789ab"
CALLS = {"insert": "fullDocument", "replace": "fullDocument", "update": "updateDescription"}


@dataclass
class Story:
    """A stream and the history that it was made from. A moment is a change's; a row stands before that of its mark."""

    messages: list[StreamMessage] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    breaks: list[str] = field(default_factory=list)
    chunk: int = -1
    row: int = 0

    def publish(self, id_: str, event: dict[str, Any], **headers: str) -> None:
        subject = f"ORDERS.{event['operationType']}"
        data = json.dumps(event).encode()
        sequence = len(self.messages) + 1
        self.messages.append(StreamMessage(WATCHER, sequence, subject, {"Nats-Msg-Id": id_, **headers}, data))

    def change(self, moment: int, operation: str, key: Any = 1, *, published: bool = True, **given: Any) -> None:
        """A change happens, and is published."""
        token = event_token(moment)
        event = {"_id": {"_data": token}, "operationType": operation, "ns": {"db": "shop", "coll": "orders"}}
        event["documentKey"] = {"_id": key}
        if operation in CALLS:
            event[CALLS[operation]] = given if operation == "update" else {"_id": key, **given}
        self.events.append(Event(token, operation, event))
        if published:
            self.publish(token, event)

    def new_chunk(self) -> None:
        self.chunk, self.row = self.chunk + 1, 0

    def place(self, moment: int) -> RowPlace:
        if self.chunk < 0:
            self.new_chunk()
        return RowPlace(mark_token(moment), 0, RUN, self.chunk, self.row)

    def rows(self, moment: int, key: Any = 1, *, at: RowPlace | None = None, **document: Any) -> None:
        """A row of a chunk is published."""
        place = at or self.place(moment)
        self.row = place.row + 1
        self.publish(str(place), row_event(place, key, document), **{"Changewire-Snapshot": place.run})

    def done(self, moment: int, documents: int) -> None:
        self.new_chunk()
        place = self.place(moment)
        event = {**row_event(place, None, {}), "operationType": "snapshot_done"}
        event["snapshot"] = {"run": RUN, "documents": documents, "collections": ["shop.orders"]}
        for name in ("ns", "documentKey", "fullDocument"):
            del event[name]
        self.publish(str(place), event, **{"Changewire-Snapshot": RUN})

    def compare(
        self,
        *,
        record: Record | None = None,
        letters: Collection[str] = (),
        position: str | None = None,
        gone: bool = False,
    ) -> Findings:
        return asyncio.run(self._compare(record, letters, position, gone))

    async def _compare(
        self, record: Record | None, letters: Collection[str], position: str | None, gone: bool
    ) -> Findings:
        async def whole(message: StreamMessage) -> dict[str, Any]:
            return message.event

        async def removed(sequence: int) -> bool:
            return gone

        async def difference(event: Event, message: StreamMessage) -> str | None:
            return None

        async def stream() -> AsyncIterator[StreamMessage]:
            for message in self.messages:
                yield message

        rows = Rows(Reading(WATCHER.subjects.subject, whole, removed, letters, compares=True))
        bounds = Bounds(letters=letters, position=position)
        history = Told(sorted(self.events, key=lambda event: event.token), self.breaks)
        comparison = Comparison(history, bounds, difference=difference, removed=removed, rows=rows)
        findings = await comparison.run(stream())
        await rows.finish(record, 0)
        return findings


def row_event(place: RowPlace, key: Any, document: dict[str, Any]) -> dict[str, Any]:
    at = moment_before(place.mark)
    return {
        "_id": {"_data": str(place)},
        "operationType": "snapshot",
        "clusterTime": {"$timestamp": {"t": at.seconds, "i": at.increment}},
        "ns": {"db": "shop", "coll": "orders"},
        "documentKey": {"_id": key},
        "fullDocument": {"_id": key, **document},
    }


@dataclass
class Told:
    """A history of these events."""

    events: Sequence[Event]
    breaks: list[str]
    _rest: list[Event] = field(default_factory=list)

    async def open(self, at: str) -> str:
        self._rest = [event for event in self.events if event.token >= at]
        return at

    async def peek(self) -> Event | None:
        return self._rest[0] if self._rest else None

    def take(self) -> None:
        del self._rest[0]

    def broke(self, before: str) -> bool:
        here = [token for token in self.breaks if token < before]
        self.breaks = self.breaks[len(here) :]
        return bool(here)


def faults(findings: Findings) -> dict[str, int]:
    return {kind: found.total for kind, found in findings.faults.items() if found.total}


def told(findings: Findings, kind: str) -> str:
    (one,) = findings.faults[kind].first
    return one.what


def story() -> Story:
    """Three documents, of which one was made, one changed and one deleted before; and changes to them afterwards."""
    it = Story()
    it.change(1, "insert", 1, text="a", n=1)
    it.change(2, "update", 2, updatedFields={"text": "b"}, removedFields=["old"])
    it.change(3, "delete", 9)
    it.rows(4, 1, text="a", n=1)
    it.rows(4, 2, text="b", n=2)
    it.new_chunk()
    it.rows(5, 3, text="c")
    it.change(6, "update", 1, updatedFields={"text": "z"}, removedFields=[])
    it.change(7, "replace", 2, text="bb")
    it.change(8, "delete", 3)
    it.done(9, 3)
    return it


def test_a_right_run_is_right_and_its_rows_are_counted() -> None:
    findings = story().compare(record=Record(RUN, "done", None, 0, 3))
    assert faults(findings) == {}
    assert (findings.compared, findings.rows, findings.rows_compared, findings.foreign) == (6, 3, 2, 0)
    report = Report("orders", "shop.orders", "ORDERS", "history", findings)
    assert (
        report.lines()[-1] == "OK: 6 changes, each once and in order; 3 rows of snapshots, each once and in its place"
    )
    assert f"snapshot {RUN}: 3 rows, complete, 3 documents" in report.lines()
    assert report.as_json()["snapshots"] == [
        {"run": RUN, "epoch": 0, "rows": 3, "documents": 3, "complete": True, "state": "done"}
    ]


def test_a_document_that_comes_twice_in_a_run_is_doubled_and_in_two_runs_it_is_not() -> None:
    it = story()
    at = replace(it.place(10), run="0123456789ac", chunk=0, row=0)
    it.rows(10, 2, text="bb", at=at)
    assert faults(it.compare()) == {}
    it = Story()
    it.rows(4, 1)
    it.rows(4, 1)
    assert faults(it.compare()) == {"doubled": 1}


def test_a_row_after_a_later_change_is_reordered() -> None:
    it = Story()
    it.change(1, "insert", 1, text="a")
    it.change(6, "update", 1, updatedFields={"text": "z"})
    it.rows(4, 1, text="a")
    assert faults(it.compare()) == {"reordered": 1}


def test_a_change_after_a_row_that_it_should_precede_is_reordered() -> None:
    it = Story()
    it.change(1, "insert", 1, text="a")
    it.rows(4, 2, text="b")
    it.change(3, "insert", 5)
    assert faults(it.compare()) == {"reordered": 1}


def test_a_row_that_is_sent_again_is_doubled() -> None:
    it = story()
    it.messages.append(it.messages[4])
    assert faults(it.compare()) == {"doubled": 1}


@pytest.mark.parametrize(
    "row", [{"text": "old", "n": 1}, {"text": "a"}, {"text": "a", "n": 1, "more": True}, {"text": "a", "n": 1.0}]
)
def test_a_row_that_is_older_than_a_change_before_it_is_altered(row: dict[str, Any]) -> None:
    it = Story()
    it.change(1, "insert", 1, text="a", n=1)
    it.rows(4, 1, **row)
    findings = it.compare()
    assert faults(findings) == {"altered": 1}
    assert "is not as the changes before it have left it, in " in told(findings, "altered")


@pytest.mark.parametrize(("row", "wrong"), [({"text": "b"}, 0), ({"text": "a"}, 1), ({"text": "b", "old": 1}, 1)])
def test_of_an_update_alone_only_what_it_names_is_known(row: dict[str, Any], wrong: int) -> None:
    it = Story()
    it.change(1, "update", 1, updatedFields={"text": "b"}, removedFields=["old"])
    it.rows(4, 1, more=1, **row)
    assert it.compare().faults["altered"].total == wrong


def test_a_row_of_a_document_that_was_deleted_is_altered() -> None:
    it = Story()
    it.change(1, "delete", 1)
    it.rows(4, 1)
    assert "has deleted" in told(it.compare(), "altered")


@pytest.mark.parametrize(
    ("operation", "given"),
    [
        ("insert", {"text": "a"}),
        ("replace", {"text": "a", "flag": True}),
        ("update", {"updatedFields": {"text": "a"}}),
        ("update", {"removedFields": ["gone"]}),
    ],
)
def test_a_row_that_is_newer_than_a_change_after_it_is_altered(operation: str, given: dict[str, Any]) -> None:
    it = Story()
    it.change(1, "insert", 5)
    it.rows(4, 1, text="a", flag=True)
    it.change(6, operation, 1, **given)
    findings = it.compare()
    assert faults(findings) == {"altered": 1}
    assert "the row #2 has the effect of this change" in told(findings, "altered")


@pytest.mark.parametrize("given", [{"updatedFields": {"n": 1}}, {"updatedFields": {"n": 2}}])
def test_an_integer_that_stays_equal_proves_nothing(given: dict[str, Any]) -> None:
    """Its type may have changed."""
    it = Story()
    it.change(1, "insert", 5)
    it.rows(4, 1, n=1)
    it.change(6, "update", 1, **given)
    assert faults(it.compare()) == {}


def test_after_a_drop_nothing_is_known_of_documents() -> None:
    it = Story()
    it.change(1, "insert", 1, text="a")
    it.breaks = [event_token(2)]
    it.rows(4, 1, text="other")
    it.breaks.append(event_token(5))
    it.change(6, "insert", 1, text="other")
    assert faults(it.compare()) == {}


def test_a_document_comes_again_where_another_collection_has_the_name() -> None:
    it = Story()
    it.change(1, "insert", 1, text="a")
    it.rows(4, 1, text="a")
    it.breaks = [event_token(5)]
    it.new_chunk()
    it.rows(6, 1, text="other")
    it.done(9, 2)
    assert faults(it.compare()) == {}


def test_a_change_that_is_missing_is_lost_and_says_nothing_of_later_rows() -> None:
    it = Story()
    it.change(1, "insert", 1, text="a")
    it.change(2, "update", 1, updatedFields={"text": "b"}, published=False)
    it.rows(4, 1, text="b")
    assert faults(it.compare()) == {"lost": 1}


def test_a_row_that_is_missing_is_lost_once() -> None:
    for gone in (1, 2, 3):
        it = Story()
        for key in range(4):
            it.rows(4, key)
        it.done(9, 4)
        del it.messages[gone]
        findings = it.compare()
        assert faults(findings) == {"lost": 1}, gone
        assert findings.rows == 3
        assert faults(it.compare(gone=True)) == {}


def test_a_chunk_that_was_cut_leaves_out_numbers_and_no_documents() -> None:
    it = Story()
    it.rows(4, 1)
    it.new_chunk()
    it.new_chunk()
    it.rows(5, 2)
    it.done(9, 2)
    assert faults(it.compare()) == {}


def test_an_end_that_counts_fewer_documents_than_there_are_is_unknown() -> None:
    it = story()
    it.messages.pop()
    it.done(9, 2)
    assert faults(it.compare()) == {"unknown": 1}


def test_rows_among_the_dead_letters_are_no_loss_and_their_replays_no_double() -> None:
    it = Story()
    it.rows(4, 1)
    it.row += 1
    missing = str(replace(it.place(4), row=1))
    it.rows(4, 3)
    it.done(9, 3)
    assert faults(it.compare()) == {"lost": 1}
    assert faults(it.compare(letters=[missing])) == {}
    id_ = str(MessageId(event_token(10), 0, missing))
    place = RowPlace.parse(missing)
    assert place is not None
    it.change(10, "insert", 7)
    it.publish(id_, row_event(place, 2, {}), **{"Changewire-Snapshot": RUN})
    findings = it.compare()
    assert faults(findings) == {}
    assert findings.foreign == 0
    it.publish(id_, row_event(place, 2, {}), **{"Changewire-Snapshot": RUN})
    assert faults(it.compare()) == {"doubled": 1}


@pytest.mark.parametrize(
    ("state", "ended", "found"),
    [
        ("done", False, {"lost": 1}), ("running", False, {}), ("running", True, {}), ("cancelled", False, {}),
        ("cancelled", True, {}), ("failed", False, {}), ("failed", True, {"unknown": 1}),
    ],
)  # fmt: skip
def test_what_the_service_says_of_the_run_and_what_the_stream_says_agree(
    state: str, ended: bool, found: dict[str, int]
) -> None:
    it = Story()
    it.rows(4, 1)
    if ended:
        it.done(9, 1)
    assert faults(it.compare(record=Record(RUN, state, "why", 0, 1))) == found
    assert faults(it.compare(record=Record(RUN, state, "why", 7, 1))) == {}, "of another epoch"


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"id": "8200"}, "another place"), ({"time": True}, "another cluster time"),
        ({"header": "0123456789ff"}, "has the header"), ({"subject": "ORDERS.insert"}, "is on the subject"),
    ],
)  # fmt: skip
def test_a_rows_own_body_subject_and_header_have_to_be_right(wrong: dict[str, Any], words: str) -> None:
    it = Story()
    place = it.place(4)
    event = row_event(place, 1, {})
    event["_id"] = {"_data": wrong.get("id", str(place))}
    if wrong.get("time"):
        event["clusterTime"]["$timestamp"]["i"] += 1
    headers = {"Nats-Msg-Id": str(place), "Changewire-Snapshot": wrong.get("header", RUN)}
    subject = wrong.get("subject", "ORDERS.snapshot")
    it.messages.append(StreamMessage(WATCHER, 1, subject, headers, json.dumps(event).encode()))
    assert words in told(it.compare(), "altered")


def test_rows_before_the_watchers_position_have_to_be_there() -> None:
    it = Story()
    it.rows(4, 1)
    assert faults(it.compare(position=str(it.place(4)))) == {"lost": 1}
    assert faults(it.compare(position=str(replace(it.place(4), row=0)))) == {}


def test_only_as_many_documents_are_kept_as_there_is_room_for() -> None:
    documents = Documents(held=250)
    for key in (b"1", b"2", b"3"):
        body = json.dumps({"operationType": "insert", "fullDocument": {"text": "x" * 50}}).encode()
        assert documents.change(key, json.loads(body), body) is None
    assert documents.row(b"1", {}, b"{}", 4) is None
    assert documents.row(b"3", {}, b"{}", 5) == ["text"]


@pytest.mark.parametrize(
    ("description", "row"),
    [
        ({"updatedFields": {"a.b": 2}}, {"a": {"b": 2}, "c": [1, 2], "d.e": 1}),
        ({"updatedFields": {"a.c": 2}}, {"a": {"b": 1, "c": 2}, "c": [1, 2], "d.e": 1}),
        ({"removedFields": ["a.b"]}, {"a": {}, "c": [1, 2], "d.e": 1}),
        ({"updatedFields": {"c.0": 9}}, {"a": {"b": 1}, "c": [9, 2], "d.e": 1}),
        ({"truncatedArrays": [{"field": "c", "newSize": 1}]}, {"a": {"b": 1}, "c": [1], "d.e": 1}),
        ({"updatedFields": {"d.e": 7}}, {"a": {"b": 1}, "c": [1, 2], "d.e": 7}),
        ({"updatedFields": {"x.y": 7}}, {"a": {"b": 1}, "c": [1, 2], "d.e": 1, "x": {"y": 7}}),
    ],
)
def test_an_update_is_applied_or_what_it_may_have_touched_is_not_judged(
    description: dict[str, Any], row: dict[str, Any]
) -> None:
    document = Document(whole=True, fields={"a": {"b": 1}, "c": [1, 2], "d.e": 1})
    document.update(description)
    assert document.differs(row) == []
    assert document.differs({**row, "more": 1}) == ["more"]
