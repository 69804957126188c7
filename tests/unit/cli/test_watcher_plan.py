"""When a definition says something else than the service's watcher, and the shortest definition that says the same.

The service's side is its own: answers are made by its shapes, so that a field that is added there is looked at here.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.api.schemas.base import TOKEN_EXAMPLE, to_json
from app.api.schemas.watchers import NewWatcher, WatcherAnswer
from app.cli import CommandError, watcher_files
from app.cli.watcher_files import Definition
from app.cli.watcher_plan import Result, Step, as_json, differs, exported, lines_of, summary
from app.domain.lifecycle import Desired, State
from app.domain.status import Status, WatcherView
from app.domain.watcher import OPERATIONS, StoredWatcher

ORDERS: dict[str, Any] = {"name": "orders", "source": {"database": "shop", "collection": "orders"}}


def answered(definition: dict[str, Any]) -> dict[str, Any]:
    """What the service answers once it has this watcher."""
    posted = NewWatcher.model_validate_json(json.dumps(definition))
    desired = Desired.PAUSED if posted.paused else Desired.RUNNING
    stored = StoredWatcher(posted.to_watcher(), desired=desired)
    answer: dict[str, Any] = json.loads(to_json(WatcherAnswer.of(WatcherView(stored, Status(State.RUNNING, 0)))))
    return answer


names = st.text(st.sampled_from("aZ0 :#-?!&*%@{}[],|>'\"\\\n\t\x7f\x85\u200f\u2028\ufeffäß€🐋"), min_size=1, max_size=6)
"""Biased towards what YAML writes in another way."""
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | names,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=6,
)
stages = st.fixed_dictionaries({"$match": st.dictionaries(names, values, max_size=3)})


def some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Objects with some of these fields."""
    return st.fixed_dictionaries({}, optional=fields)


sources = st.builds(
    dict.__or__,
    st.sampled_from(
        [
            {"database": "shop", "collection": "orders"},
            {"database": "shop"},
            {"database": None, "collection": None},
            {"database": "shop", "include": ["a*"], "exclude": ["*_tmp"]},
            {},
        ]
    ),
    some(
        pipeline=st.lists(stages, max_size=2),
        full_document=st.sampled_from(["default", "updateLookup", "required"]),
        full_document_before_change=st.sampled_from(["off", "whenAvailable"]),
        pre_and_post_images=st.booleans(),
        show_expanded_events=st.booleans(),
    ),
)
definitions = st.builds(
    dict.__or__,
    st.fixed_dictionaries({"name": names, "source": sources}),
    some(
        sink=some(
            stream=names,
            subject=st.sampled_from(["{stream}.{operation}", "{stream}.{collection}.{operation}", "a.{operation}"]),
            operations=st.lists(st.sampled_from(OPERATIONS), min_size=1, max_size=4, unique=True),
            oversize=st.sampled_from(["claim_check", "fail", "dead_letter"]),
            replicas=st.integers(1, 5),
            max_age_seconds=st.sampled_from([0, 3600, 0.5]),
            max_bytes=st.sampled_from([-1, 2**40]),
            stream_settings=st.sampled_from(["changewire", "connector"]),
        ),
        checkpoint=st.none() | some(database=names, collection=names, capped=st.booleans()),
        start=st.sampled_from(
            [
                {"at": "latest"},
                {"at": "earliest"},
                {"at": {"timestamp": "2026-01-01T00:00:00Z"}},
                {"at": {"token": TOKEN_EXAMPLE}},
            ]
        ),
        on_history_lost=st.sampled_from(["fail", "latest", "earliest"]),
        snapshot=st.sampled_from(["none", "initial", "only"]),
        paused=st.booleans(),
    ),
)  # fmt: skip


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("export") / "watchers"


@settings(max_examples=40)
@given(definition=definitions, other=definitions)
def test_what_is_exported_makes_the_same_watcher_in_either_form_and_no_other(
    file: Path, definition: dict[str, Any], other: dict[str, Any]
) -> None:
    now = answered(definition)
    assert not differs(definition, now)
    assert not differs(now, now)
    short = exported(now)
    assert not differs(short, now)
    assert len(json.dumps(short)) <= len(json.dumps({key: value for key, value in now.items() if key != "status"}))
    assert {**answered(short), "status": None} == {**now, "status": None}
    for text in (watcher_files.as_yaml([short, now]), watcher_files.as_json([short, now])):
        file.write_text(text, encoding="utf-8")
        assert [each.document for each in watcher_files.read(file)] == [short, now]
    theirs = answered({**other, "name": definition["name"]})
    if {**theirs, "status": None} != {**now, "status": None}:
        assert differs(exported(theirs), now) or theirs["paused"] is not now["paused"]


def test_the_shortest_definition_is_what_a_person_would_write() -> None:
    assert exported(answered(ORDERS)) == {**ORDERS, "sink": {"stream": "ORDERS"}}
    scope = {"name": "shop", "source": {"database": "shop", "include": ["orders_*"]}, "sink": {"stream": "SHOP"}}
    assert exported(answered(scope | {"paused": True, "start": {"at": "earliest"}})) == {
        **scope, "start": {"at": "earliest"}, "paused": True,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "differ"),
    [({}, False), ({"paused": False}, False), ({"paused": True}, True), ({"paused": 0}, True), ({"status": {}}, False),
     ({"sink": {"stream": "ORDERS", "duplicate_window_seconds": 120.0}}, False), ({"sink": {"replicas": True}}, True),
     ({"sink": {"stram": "X"}}, True), ({"sink": 3}, True), ({"sink": None}, False), ({"stream": "ORDERS"}, True),
     ({"source": {}}, True), ({"source": "orders"}, True), ({"start": {"at": "noon"}}, True),
     ({"start": {"at": "latest", "then": 1}}, True), ({"checkpoint": {"database": "x"}}, True),
     ({"source": {**ORDERS["source"], "pipeline": [{"$sort": {"b": 1, "a": 1}}]}}, True)],
)  # fmt: skip
def test_what_is_not_known_to_be_the_same_is_asked_of_the_service(change: dict[str, Any], differ: bool) -> None:
    now = answered({**ORDERS, "source": {**ORDERS["source"], "pipeline": []}})
    assert differs(ORDERS | change, now) is differ


def test_the_order_within_a_pipeline_counts() -> None:
    def sorting(*fields: str) -> dict[str, Any]:
        return {**ORDERS, "source": {**ORDERS["source"], "pipeline": [{"$sort": dict.fromkeys(fields, 1)}]}}

    assert not differs(sorting("a", "b"), answered(sorting("a", "b")))
    assert differs(sorting("b", "a"), answered(sorting("a", "b")))


def test_a_watcher_of_a_later_version_is_exported_whole_and_always_asked_about() -> None:
    later = answered(ORDERS) | {"colour": "red"}
    assert exported(later)["colour"] == "red"
    assert exported(later)["sink"]["replicas"] == 1
    assert differs(ORDERS, later)
    later = answered(ORDERS)
    later["sink"]["colour"] = "red"
    assert exported(later)["sink"]["colour"] == "red"
    assert differs(ORDERS, later)


def test_each_field_that_changes_is_said_with_both_values() -> None:
    before = answered(ORDERS | {"sink": {"max_age_seconds": 60}})
    wanted = ORDERS | {
        "source": {**ORDERS["source"], "pipeline": [{"$match": {"a": 1}}]},
        "checkpoint": {"database": "tokens", "collection": "orders"},
        "on_history_lost": "latest",
    }
    step = Step(Definition(wanted, "x"), Result.REPLACED, before, '"1"', answered(wanted))
    assert list(lines_of(step)) == [
        "orders: would be replaced",
        '  source.pipeline: [] → [{"$match": {"a": 1}}]',
        "  sink.max_age_seconds: 60 → 0",
        "  on_history_lost: fail → latest",
        "  checkpoint.database: none → tokens",
        "  checkpoint.collection: none → orders",
        "  checkpoint.capped: none → false",
        "  checkpoint.size_in_bytes: none → 0",
    ]
    step.done = True
    assert next(lines_of(step)) == "orders: replaced, RUNNING"
    assert as_json(step)["changes"][1] == {"field": "sink.max_age_seconds", "before": 60, "after": 0}
    assert summary([step, Step(step.wanted, Result.UNCHANGED), step]) == "2 replaced, 1 unchanged"


def test_files_of_a_directory_are_read_by_name_and_a_name_may_be_there_once(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text("name: b\nsource: {}\n")
    (tmp_path / "a.json").write_text('[{"name": "a"}, {"source": {}}]')
    (tmp_path / "notes.txt").write_text("not a watcher")
    (tmp_path / "old").mkdir()
    found = watcher_files.read_all([tmp_path])
    assert [each.label for each in found] == ["a", f"watcher 2 of {tmp_path / 'a.json'}", "b"]
    with pytest.raises(CommandError, match=r"b is there twice: as watcher 1 of .*b\.yaml"):
        watcher_files.read_all([tmp_path, tmp_path / "b.yaml"])
    with pytest.raises(CommandError, match="has no file that ends with"):
        watcher_files.read_all([tmp_path / "old"])
