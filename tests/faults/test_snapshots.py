"""The form with snapshots strikes at chosen moments, and its verdict finds a row that is not as it should be."""

import json
from typing import Any

import pytest

from tests.faults.forms import SNAPSHOTS
from tests.faults.run import Plan
from tests.faults.snapshot_hands import MOMENTS
from tests.faults.snapshots import Snapshots
from tests.faults.testbed import KEPT
from tests.service.messages import HEADER, Message
from tests.service.rows import RUN, Applied
from tests.traps import MOMENTS as TRAPS

BEFORE = {1: "a", 2: "b", 3: "c"}


def test_a_watcher_for_each_way_to_publish_takes_snapshots_while_two_instances_are_struck() -> None:
    testbed = Snapshots(patience=1.0, good=1.0, silence=1.0)
    assert [watcher["name"] for watcher in testbed.watchers] == list(KEPT)
    assert set(testbed.replicated) | set(testbed.one_replica) == set(KEPT)
    assert len(testbed.instances) == 2
    assert Plan(1, names=tuple(SNAPSHOTS)).form is Snapshots
    assert set(MOMENTS) <= set(TRAPS)
    assert {f"snapshots-{kind}-{moment}" for kind in ("killed", "stopped") for moment in MOMENTS} <= set(SNAPSHOTS)


def row(place: int, key: int, n: str, run: str = "r") -> tuple[str, dict[str, Any]]:
    return run, {
        "_id": {"_data": f"{place:03}"}, "operationType": "snapshot", "documentKey": {"_id": key},
        "fullDocument": {"n": n},
    }  # fmt: skip


def done(place: int, documents: int, run: str = "r") -> tuple[str, dict[str, Any]]:
    counted = {"run": run, "documents": documents}
    return run, {"_id": {"_data": f"{place:03}"}, "operationType": "snapshot_done", "snapshot": counted}


def update(place: int, key: int, n: str) -> tuple[str, dict[str, Any]]:
    event = {"operationType": "update", "documentKey": {"_id": key}, "updateDescription": {"updatedFields": {"n": n}}}
    return "", {"_id": {"_data": f"{place:03}"}, **event}


def delete(place: int, key: int) -> tuple[str, dict[str, Any]]:
    return "", {"_id": {"_data": f"{place:03}"}, "operationType": "delete", "documentKey": {"_id": key}}


def applied(*events: tuple[str, dict[str, Any]]) -> Applied:
    found = Applied(dict(BEFORE))
    found.apply(
        Message(index, "", {HEADER: event["_id"]["_data"], **({RUN: run} if run else {})}, json.dumps(event).encode())
        for index, (run, event) in enumerate(events)
    )
    return found


def test_runs_as_they_should_be() -> None:
    found = applied(
        update(1, 1, "z"), row(2, 1, "z"), row(3, 2, "b"), delete(4, 3), done(5, 2), row(6, 1, "z", "s"),
        update(7, 2, "y"), row(8, 2, "y", "s"), done(9, 2, "s"),
    )  # fmt: skip
    assert found.wrong == []
    assert found.state == found.known == {1: "z", 2: "y"}
    assert [run.done for run in found.runs.values()] == [True, True]


@pytest.mark.parametrize(
    ("events", "words"),
    [
        ([update(1, 1, "z"), row(2, 1, "a")], "is a, and z at this place"),
        ([row(1, 1, "z"), update(2, 1, "z")], "is z, and a at this place"),
        ([delete(1, 1), row(2, 1, "a")], "was deleted"),
        ([row(1, 1, "a"), row(2, 1, "a")], "twice"),
        ([row(2, 1, "a"), row(1, 2, "b")], "comes after"),
        ([row(1, 1, "a"), row(2, 2, "b"), done(3, 2)], "1 documents are not in the run"),
        ([row(1, 1, "a"), row(2, 2, "b"), row(3, 3, "c"), done(4, 2)], "its end says"),
        ([delete(1, 1), delete(2, 2), delete(3, 3), done(4, 0), row(5, 1, "a")], "comes after the end"),
    ],
)
def test_what_is_wrong_with_a_row_is_found(events: list[tuple[str, dict[str, Any]]], words: str) -> None:
    assert any(words in wrong for wrong in applied(*events).wrong)
