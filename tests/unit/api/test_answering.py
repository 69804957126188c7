"""Each call answers the model that the document has for it, whatever is in it, and a long list lets others in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import httpx
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.api import openapi_document
from app.api.answering import PIECE_BYTES
from app.api.schemas.base import moment, to_json
from app.api.schemas.dead_letters import LetterAnswer, LettersAnswer, ReplayAnswer, WholeLetterAnswer
from app.api.schemas.instances import InstanceAnswer
from app.api.schemas.positions import TokenAnswer
from app.api.schemas.snapshots import SnapshotAnswer
from app.api.schemas.status import HappeningAnswer, HealthAnswer, LagAnswer, ProbeAnswer, ServiceAnswer, StatusAnswer
from app.api.schemas.streams import MessageEvent, StreamAnswer
from app.api.schemas.suggestions import SuggestedAnswer, SuggestionsAnswer
from app.api.schemas.watchers import WatcherAnswer
from app.domain.dead_letters import DeadLetter, Replay
from app.domain.instances import InstanceView, Member
from app.domain.lifecycle import Desired, State
from app.domain.snapshot import Part, Snapshot
from app.domain.status import (
    Component,
    ErrorSeen,
    Happening,
    Health,
    Lag,
    Reads,
    SnapshotView,
    Status,
    TokenView,
    WatcherView,
)
from app.domain.streams import ConsumerFacts, StoredMessage, StreamFacts
from app.domain.suggestions import Suggested, Suggestions
from app.domain.watcher import Start, StoredWatcher, from_document
from tests.unit.api.documented import assert_shape
from tests.unit.api.fake_registry import TOKEN, FakeRegistry

text = st.text(max_size=30)
number = st.integers(0, 2**63)
seconds = st.floats(0, 9e9) | st.integers(0, 4_000_000_000)
maybe_seconds = st.none() | seconds
errors = st.builds(ErrorSeen, type=text, message=text, time=seconds, count=number)
runs = st.builds(
    Snapshot, st.just("orders"), text, st.sampled_from(["initial", "on_demand"]), seconds,
    st.sampled_from([None, '{"n":{"$gt":1}}']), st.just(()),
    st.sampled_from(["running", "done", "cancelled", "failed"]),
    st.none() | text, st.none() | number, maybe_seconds, maybe_seconds, st.none() | number,
    st.lists(st.builds(Part, text), min_size=1, max_size=2).map(tuple), st.sampled_from([0, 2]), documents=number,
)  # fmt: skip
snapshots = st.builds(SnapshotView, runs, st.none() | text, seconds, maybe_seconds)
statuses = st.builds(
    Status, st.sampled_from(State), seconds, st.none() | text, st.none() | errors, number, number, number, seconds,
    seconds, st.sampled_from([None, "atomic", "window", "single"]), st.sampled_from([None, "stream", "subject"]),
    st.none() | st.builds(Reads, st.booleans(), st.none() | text), st.none() | number,
    st.lists(text, max_size=3).map(tuple), st.none() | text, st.none() | snapshots,
)  # fmt: skip
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(-1e9, 1e9) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3), max_leaves=10,
)  # fmt: skip
starts = st.sampled_from(
    [Start(), Start("earliest"), Start("token", TOKEN), Start("timestamp", 1_700_000_000.25), Start("timestamp", 0)]
)
definitions = st.fixed_dictionaries(
    {
        "name": st.just("orders"),
        "source": st.fixed_dictionaries(
            {"database": text, "collection": text, "full_document": st.sampled_from([None, "required"])},
            optional={"pipeline": st.lists(st.dictionaries(text, values, min_size=1, max_size=2), max_size=3)},
        ),
        "sink": st.fixed_dictionaries({"max_age_seconds": seconds, "duplicate_window_seconds": seconds}),
    }
)
views = st.builds(
    lambda definition, start, desired, status: WatcherView(
        StoredWatcher(replace(from_document(definition), start=start), desired=desired), status
    ),
    definitions, starts, st.sampled_from(Desired), statuses,
)  # fmt: skip
letters = st.builds(
    DeadLetter, number, text, text, text, text, seconds, number, number, st.sampled_from([None, '{"_id":1}']),
    st.none() | text, st.none() | text, st.none() | st.binary(max_size=50),
)  # fmt: skip
consumers = st.builds(
    ConsumerFacts, text, st.booleans(), st.lists(text, max_size=2).map(tuple), number, number, number, number
)
streams = st.builds(
    StreamFacts, text, st.lists(text, max_size=2).map(tuple), st.just("2026-01-01T00:00:00Z"), text, text, text, number,
    seconds, st.integers(-1, 2**62), st.integers(-1, 2**62), seconds, number, number, number, number, number,
    st.none() | st.lists(consumers, max_size=2).map(tuple), st.none() | text,
)  # fmt: skip
components = st.builds(
    Component, st.booleans(), st.none() | text, st.lists(text, max_size=2).map(tuple),
    st.dictionaries(st.sampled_from([state.value for state in State]), number),
)  # fmt: skip
lags = st.builds(Lag, maybe_seconds, maybe_seconds, st.none() | text, maybe_seconds, maybe_seconds)
happenings = st.builds(Happening, st.sampled_from(State), seconds, seconds, st.none() | text, number)
positions = st.builds(TokenView, st.none() | text, maybe_seconds, st.none() | number, number, maybe_seconds)
members = st.builds(
    Member, text, text, seconds, st.booleans(), st.booleans(), st.none() | text, st.booleans(), seconds, text, text,
    since=seconds,
    seen=seconds, age=seconds,
)  # fmt: skip
instances = st.builds(InstanceView, members, number, st.booleans(), maybe_seconds)
suggested = st.builds(Suggested, st.lists(text, max_size=3).map(tuple), st.booleans(), st.none() | text)
bodies = st.binary(max_size=40) | values.map(orjson.dumps)
messages = st.builds(StoredMessage, number, seconds, text, st.dictionaries(text, text, max_size=2), bodies)

ANSWERS: list[tuple[str, Callable[[Any], Any], st.SearchStrategy[Any]]] = [
    ("WatcherAnswer", WatcherAnswer.of, views),
    ("StatusAnswer", StatusAnswer.of, statuses),
    ("SnapshotAnswer", SnapshotAnswer.of, snapshots),
    ("HealthAnswer", HealthAnswer.of, statuses),
    ("HealthAnswer", HealthAnswer.unknown, text),
    ("LagAnswer", LagAnswer.of, lags),
    ("HappeningAnswer", HappeningAnswer.of, happenings),
    ("ServiceAnswer", ServiceAnswer.of, st.builds(Health, st.dictionaries(text, components, max_size=3))),
    ("ProbeAnswer", ProbeAnswer.of, st.none() | text),
    ("TokenAnswer", TokenAnswer.of, positions),
    ("LetterAnswer", LetterAnswer.of, letters),
    ("WholeLetterAnswer", lambda letter: WholeLetterAnswer.whole(letter, None), letters),
    ("WholeLetterAnswer", lambda letter: WholeLetterAnswer.whole(letter, b'{"n":1.10}'), letters),
    ("LettersAnswer", lambda found: LettersAnswer.of(7, found, 2), st.lists(letters, max_size=2)),
    ("ReplayAnswer", ReplayAnswer.of, st.builds(Replay, text, number, text)),
    ("StreamAnswer", StreamAnswer.of, streams),
    ("InstanceAnswer", InstanceAnswer.of, instances),
    ("MessageEvent", MessageEvent.of, messages),
    ("SuggestedAnswer", SuggestedAnswer.of, suggested),
    ("SuggestionsAnswer", SuggestionsAnswer.of, st.builds(Suggestions, suggested, suggested, suggested)),
]  # fmt: skip


@pytest.mark.parametrize(("component", "make", "given_values"), ANSWERS, ids=[each[0] for each in ANSWERS])
def test_whatever_there_is_to_say_the_answer_has_the_documented_shape(
    component: str, make: Callable[[Any], Any], given_values: st.SearchStrategy[Any]
) -> None:
    @settings(deadline=None, max_examples=50)
    @given(given_values)
    def has_the_shape(value: Any) -> None:
        assert_shape(component, to_json(make(value)))

    has_the_shape()


@given(st.floats(0, 9e9) | st.integers(0, 9_000_000_000))
def test_a_time_is_iso_8601_in_utc_with_milliseconds(value: float) -> None:
    expected = datetime.fromtimestamp(value, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    assert moment(value) == expected


def test_every_answer_of_the_document_is_tried() -> None:
    parts = {"ErrorAnswer", "EventsAnswer", "RatesAnswer", "ComponentAnswer", "ConsumerAnswer"}
    names = {name for name in openapi_document()["components"]["schemas"] if name.endswith(("Answer", "Event"))}
    assert names == {component for component, _, _ in ANSWERS} | parts


def test_a_watcher_of_an_earlier_version_is_answered_as_it_is_stored() -> None:
    watcher = from_document({"name": "not a name", "source": {"database": "", "collection": "c"}})
    old = replace(watcher, sink=replace(watcher.sink, replicas=99), start=Start("token", "no token"))
    answer = orjson.loads(to_json(WatcherAnswer.of(WatcherView(StoredWatcher(old), Status(State.FAILED, 0.0)))))
    assert (answer["name"], answer["sink"]["replicas"]) == ("not a name", 99)
    assert answer["start"] == {"at": {"token": "no token"}}


@pytest.mark.parametrize(("path", "model"), [
    ("/watchers", {"type": "array", "items": {"$ref": "#/components/schemas/WatcherAnswer"}}),
    ("/watchers/{name}", {"$ref": "#/components/schemas/WatcherAnswer"}),
    ("/watchers/{name}/history", {"type": "array", "items": {"$ref": "#/components/schemas/HappeningAnswer"}}),
    ("/lag", {"type": "object", "additionalProperties": {"$ref": "#/components/schemas/LagAnswer"}}),
    ("/metrics", None), ("/watchers/{name}/messages", None),
])  # fmt: skip
def test_the_document_has_what_a_call_says_it_returns(path: str, model: dict[str, Any] | None) -> None:
    content = openapi_document()["paths"][path]["get"]["responses"]["200"]["content"]
    schema = content.get("application/json", {}).get("schema")
    assert model == (schema and {key: value for key, value in schema.items() if key != "title"})


async def test_others_have_their_turn_while_many_large_watchers_are_listed(
    client: httpx.AsyncClient, registry: FakeRegistry
) -> None:
    source = {"database": "d", "collection": "c", "pipeline": [{"$match": {"a": "x" * PIECE_BYTES}}]}
    for number in range(30):
        watcher = from_document({"name": f"w{number:02}", "source": source})
        registry.views[watcher.name] = registry.show(watcher, State.RUNNING)
    (await client.get("/watchers")).raise_for_status()
    turns, over = 0, False

    async def other() -> None:
        nonlocal turns
        while not over:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other(), name="other")
    answer = await client.get("/watchers")
    over = True
    await task
    assert [each["name"] for each in answer.json()] == sorted(registry.views)
    assert turns >= 30, "the list was written in one go"
    assert answer.json()[0] == (await client.get("/watchers/w00")).json()
