"""What a change stream is asked for with: over each kind of target, from each kind of start."""

from typing import Any

import pytest
from bson import ObjectId
from bson.timestamp import Timestamp

from app.domain.errors import Invalid, SourceRefused, TokenRefused
from app.domain.tokens import ClusterTime
from app.domain.watcher import Source
from app.mongodb.stream import (
    MONGODB_6_0,
    StreamRequest,
    Target,
    after_token,
    at,
    at_time_of,
    moment_of,
    parse_pipeline,
)
from tests.fakes import BEGIN, event_token

TOKEN = event_token(7)


@pytest.mark.parametrize(
    ("target", "sent_to", "aggregate", "cursors", "stage"),
    [
        (Target("shop", "orders"), "shop", "orders", "orders", {}),
        (Target("shop"), "shop", 1, "$cmd.aggregate", {}),
        (Target(), "admin", 1, "$cmd.aggregate", {"allChangesForCluster": True}),
    ],
)
def test_a_target_is_in_the_names_of_its_commands(
    target: Target, sent_to: str, aggregate: str | int, cursors: str, stage: dict[str, Any]
) -> None:
    assert target.sent_to == sent_to
    assert target.change_stream(after_token(TOKEN), fullDocument="updateLookup") == {
        "$changeStream": {"startAfter": {"_data": TOKEN}, "fullDocument": "updateLookup", **stage}
    }
    assert target.aggregate([{"$match": {}}], size=3) == {
        "aggregate": aggregate, "pipeline": [{"$match": {}}], "cursor": {"batchSize": 3}, "comment": "changewire",
    }  # fmt: skip
    assert target.get_more(5, size=3, wait_ms=10) == {
        "getMore": 5, "collection": cursors, "batchSize": 3, "maxTimeMS": 10
    }  # fmt: skip
    assert target.kill(5) == {"killCursors": cursors, "cursors": [5]}


def test_a_collection_needs_a_database() -> None:
    with pytest.raises(ValueError, match="orders"):
        Target("", "orders")


def test_the_moment_of_a_start_is_its_cluster_time() -> None:
    moment = ClusterTime(BEGIN + 7, 1)
    assert at_time_of(TOKEN) == at(moment) == {"startAtOperationTime": Timestamp(BEGIN + 7, 1)}
    assert moment_of(at(moment)) == moment_of(after_token(TOKEN)) == moment
    assert moment_of({}) is None
    with pytest.raises(TokenRefused):
        at_time_of("no token")


def request(*stages: dict[str, Any], wire_version: int = MONGODB_6_0, **options: Any) -> StreamRequest:
    made = StreamRequest(Source("shop", "orders", pipeline=stages, **options))
    made.wire_version = wire_version
    return made


def test_the_pipeline_stands_between_the_stream_and_what_is_behind_it() -> None:
    asked = request({"$match": {"a": 1}}, full_document="updateLookup", show_expanded_events=True)
    last = {"$unset": ["fullDocument"]}
    first = {"$changeStream": {"fullDocument": "updateLookup", "showExpandedEvents": True}}
    bare = {"$changeStream": {}}
    assert [stage for stage in asked.stages({}, last) if "$changeStream" not in stage] == [{"$match": {"a": 1}}, last]
    assert first["$changeStream"].items() <= asked.stages({})[0]["$changeStream"].items()
    assert asked.stages({}, options=False, pipeline=False) == [bare]


def test_what_an_older_server_does_not_know_is_not_asked_of_it_and_required_is() -> None:
    for wanted, kept in (("whenAvailable", False), ("required", True)):
        before = request(wire_version=MONGODB_6_0 - 1, full_document_before_change=wanted).stages({})[0]
        since = request(full_document_before_change=wanted).stages({})[0]
        assert ("fullDocumentBeforeChange" in before["$changeStream"]) is kept
        assert since["$changeStream"]["fullDocumentBeforeChange"] == wanted


def test_what_is_left_to_the_server_is_not_asked_for() -> None:
    asked = request(full_document=None, full_document_before_change=None)
    assert asked.stages(after_token(TOKEN)) == [{"$changeStream": after_token(TOKEN)}]


def test_extended_json_becomes_what_it_stands_for_and_regex_keeps_its_neighbours() -> None:
    oid = "0123456789abcdef01234567"
    (stage,) = parse_pipeline(
        [{"$match": {"o": {"$oid": oid}, "d": {"$date": "2026-01-01T00:00:00Z"}, "s": {"$regex": "^a", "$ne": "ab"}}}]
    )
    assert stage["$match"]["o"] == ObjectId(oid)
    assert stage["$match"]["d"].year == 2026
    assert stage["$match"]["s"] == {"$regex": "^a", "$ne": "ab"}


def test_what_is_no_extended_json_is_invalid_and_ends_a_stored_watcher() -> None:
    wrong = {"$match": {"a": {"$oid": "short"}}}
    with pytest.raises(Invalid) as refused:
        parse_pipeline([wrong])
    assert [problem.field for problem in refused.value.problems] == ["source.pipeline"]
    with pytest.raises(SourceRefused, match=r"shop\.orders: source\.pipeline"):
        request(wrong).stages({})
