"""Watchers as values: defaults, documents, what can be refused without a server, and who is in whose way."""

from dataclasses import replace
from typing import Any

import pytest

from app.domain.checkpoint_place import CheckpointPlace
from app.domain.errors import Conflict
from app.domain.overlap import refuse_overlap
from app.domain.watcher import (
    Sink,
    Source,
    Start,
    Watcher,
    from_document,
    problems,
    problems_when_added,
    start_from_document,
    to_document,
)
from tests.fakes import event_token

ORDERS = Watcher("orders", Source("shop", "orders")).with_defaults()
FULL: dict[str, Any] = {
    "name": "orders",
    "source": {
        "database": "shop",
        "collection": "orders",
        "pipeline": [],
        "full_document": "updateLookup",
        "full_document_before_change": "whenAvailable",
        "pre_and_post_images": False,
        "show_expanded_events": False,
    },
    "sink": {
        "stream": "ORDERS",
        "subject": "{stream}.{operation}",
        "operations": ["insert", "update", "replace", "delete"],
        "oversize": "claim_check",
        "replicas": 1,
        "max_age_seconds": 0,
        "max_bytes": -1,
        "duplicate_window_seconds": 120,
        "stream_settings": "changewire",
    },
    "checkpoint": None,
    "start": {"at": "latest"},
    "on_history_lost": "fail",
}


def test_only_name_database_and_collection_are_needed() -> None:
    watcher = from_document({"name": "orders", "source": {"database": "shop", "collection": "orders"}})
    assert to_document(watcher) == FULL
    assert watcher.space == "ORDERS.*"
    assert watcher.subject("insert") == "ORDERS.insert"


@pytest.mark.parametrize(
    "start",
    [{"at": "earliest"}, {"at": {"timestamp": "2026-01-01T00:00:00Z"}}, {"at": {"token": event_token(1)}}],
)
def test_a_document_says_the_same_after_reading(start: dict[str, Any]) -> None:
    document = FULL | {"start": start}
    assert to_document(from_document(document)) == document


def test_a_start_may_be_written_short() -> None:
    assert start_from_document({"timestamp": "2026-01-01T00:00:00+01:00"}) == Start("timestamp", 1767222000.0)
    assert start_from_document({"token": "82"}) == Start("token", "82")


@pytest.mark.parametrize("start", [{"at": "noon"}, {"timestamp": "2026-01-01T00:00:00"}, {"timestamp": "soon"}])
def test_a_start_that_means_nothing_is_refused(start: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must be|no offset|Invalid isoformat"):
        start_from_document(start)


def test_a_watcher_of_a_snapshot_alone_publishes_no_change_by_a_route_of_its_own() -> None:
    initial, only = (from_document(FULL | {"snapshot": each}) for each in ("initial", "only"))
    assert to_document(only) == FULL | {"snapshot": "only"}
    assert initial.operations == set(FULL["sink"]["operations"])
    assert only.operations == set()
    assert initial.route == ORDERS.route != only.route


def test_a_route_is_stream_subject_and_what_is_selected() -> None:
    route = ORDERS.route
    assert route == Watcher("orders", Source("shop", "orders")).with_defaults().route
    assert (
        route == replace(ORDERS, sink=replace(ORDERS.sink, replicas=3, operations=ORDERS.sink.operations[::-1])).route
    )
    others = (
        replace(ORDERS, sink=replace(ORDERS.sink, stream="SALES")),
        replace(ORDERS, sink=replace(ORDERS.sink, subject="a.{operation}")),
        replace(ORDERS, sink=replace(ORDERS.sink, operations=("insert",))),
        replace(ORDERS, source=replace(ORDERS.source, pipeline=({"$match": {"operationType": "insert"}},))),
        replace(ORDERS, source=replace(ORDERS.source, show_expanded_events=True)),
    )
    assert len({other.route for other in others} | {route}) == 6
    assert others[0].on_route(route).space == ORDERS.space


def test_a_token_counts_in_capitals_however_it_was_written() -> None:
    assert start_from_document({"token": event_token(1).lower()}) == Start("token", event_token(1))


@pytest.mark.parametrize(
    ("watcher", "field"),
    [
        (replace(ORDERS, name="a/b"), "name"),
        (replace(ORDERS, name=".."), "name"),
        (replace(ORDERS, name=""), "name"),
        (replace(ORDERS, name="x" * 129), "name"),
        (replace(ORDERS, source=Source("admin", "orders")), "source.database"),
        (replace(ORDERS, source=Source("state", "orders")), "source.database"),
        (replace(ORDERS, source=Source("a b", "orders")), "source.database"),
        (replace(ORDERS, source=Source("", "orders")), "source.database"),
        (replace(ORDERS, source=Source("x" * 64, "orders")), "source.database"),
        (replace(ORDERS, source=Source("shop", "system.views")), "source.collection"),
        (replace(ORDERS, source=Source("shop", "a$b")), "source.collection"),
        (replace(ORDERS, source=Source("shop", include=("",))), "source.include.0"),
        (replace(ORDERS, source=Source("shop", "x" * 300)), "source.collection"),
        (replace(ORDERS, checkpoint=CheckpointPlace("shop", "orders")), "checkpoint.collection"),
        (replace(ORDERS, checkpoint=CheckpointPlace("t", "o", capped=True)), "checkpoint.size_in_bytes"),
        (replace(ORDERS, source=Source("STATE", "orders")), "source.database"),
        (replace(ORDERS, sink=Sink("A.B")), "sink.stream"),
        (replace(ORDERS, sink=Sink("A", subject="{table}")), "sink.subject"),
        (replace(ORDERS, sink=Sink("A", subject="a b")), "sink.subject"),
        (replace(ORDERS, sink=Sink("A", operations=("upsert",))), "sink.operations"),
        (replace(ORDERS, sink=Sink("A", operations=())), "sink.operations"),
        (replace(ORDERS, start=Start("token", "nonsense")), "start.at"),
    ],
)
def test_what_cannot_work_is_named_by_its_field(watcher: Watcher, field: str) -> None:
    found = problems(watcher, state_database="state")
    assert field in [problem.field for problem in found]


def test_a_good_watcher_has_no_problems() -> None:
    assert problems(ORDERS, state_database="state") == []


def test_the_same_subjects_are_refused_with_a_way_out_that_works() -> None:
    other = Watcher("orders2", Source("crm", "orders"), checkpoint=CheckpointPlace("t", "o2")).with_defaults()
    with pytest.raises(Conflict, match=r"watcher orders uses.*'CRM_ORDERS'.*'\{stream\}\.\{database\}") as refused:
        refuse_overlap(other, [ORDERS])
    assert "orders2" in str(refused.value)
    refuse_overlap(replace(other, sink=replace(other.sink, stream="CRM_ORDERS")), [ORDERS])
    refuse_overlap(replace(other, sink=replace(other.sink, subject="{stream}.{database}.{operation}")), [ORDERS])


@pytest.mark.parametrize("stream", ["OBJ_ORDERS", "OBJ_ORDERS-DLQ"])
def test_the_stream_behind_another_watchers_object_store_is_refused(stream: str) -> None:
    other = Watcher("other", Source("shop", "other"), sink=Sink(stream)).with_defaults()
    with pytest.raises(Conflict, match=f"{stream}.*watcher orders keeps what is too large"):
        refuse_overlap(other, [ORDERS])
    with pytest.raises(Conflict, match=f"{stream}.*watcher other publishes"):
        refuse_overlap(ORDERS, [other])


@pytest.mark.parametrize("collection", ["kv_orders", "obj_orders"])
def test_a_collection_named_like_a_bucket_is_refused_only_when_it_is_added(collection: str) -> None:
    one = Watcher("w", Source("shop", collection)).with_defaults()
    assert problems(one, state_database="state") == []
    assert [each.field for each in problems_when_added(one)] == ["sink.stream"]


def test_the_same_place_for_two_positions_is_refused() -> None:
    place = CheckpointPlace()
    other = Watcher("orders2", Source("crm", "orders"), Sink("CRM"), place).with_defaults()
    with pytest.raises(Conflict, match=r"resume-tokens\.orders.*'crm\.orders'"):
        refuse_overlap(other, [replace(ORDERS, checkpoint=place).with_defaults()])
    refuse_overlap(replace(other, checkpoint=None), [ORDERS])  # each under its own name


def test_a_watcher_that_names_a_place_in_part_has_the_rest_of_it_by_default() -> None:
    named = {"name": "orders", "source": {"database": "shop", "collection": "orders"}, "checkpoint": {}}
    assert from_document(named).checkpoint == CheckpointPlace("resume-tokens", "orders")
    assert from_document(to_document(from_document(named))) == from_document(named)
    assert from_document(named | {"checkpoint": None}).checkpoint is None
