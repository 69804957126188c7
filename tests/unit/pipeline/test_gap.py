"""A gap and its marker: what it says, and where a watcher goes on behind it, whatever becomes of publishing it."""

import asyncio
import json
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import cast

import pytest

from app.control.watcher_task import WatcherTask
from app.domain.errors import HistoryLost, NotAuthorised, SinkUnavailable
from app.domain.events import namespace_of
from app.domain.gap import Gap, history_gap
from app.domain.lifecycle import State
from app.domain.opening import Facts, GoOn, Refill, decide_opening
from app.domain.position import Checkpoint, OwnMessage, Reached, Tail
from app.domain.tokens import MessageId, parse_message_id
from app.domain.watcher import OnHistoryLost, Sink, Source, StoredWatcher, Watcher
from tests.fakes import BEGIN, Deed, FakeMessage, FakeSource, NullObserver, event_token, mark_token
from tests.unit.deployment import Fakes, kill, outrun, until, watcher

CREATED, LATER = "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"
REACHED = Reached(event_token(8), 3, 20, CREATED, OwnMessage(20, MessageId(event_token(8), 3)))
STORED = Checkpoint(event_token(7), 3, 19, CREATED)
PLACE = "resume-tokens.orders"


# The marker


def test_the_marker_says_what_is_missing_and_its_id_says_where_the_watcher_is() -> None:
    marker = Gap("history_lost", event_token(3), mark_token(9), 2).marker(Watcher("orders", Source("shop", "orders")))
    assert json.loads(marker.body) == {
        "operationType": "gap",
        "ns": {"db": "shop", "coll": "orders"},
        "from": {"token": event_token(3), "clusterTime": {"$timestamp": {"t": BEGIN + 3, "i": 1}}},
        "to": {"token": mark_token(9), "clusterTime": {"$timestamp": {"t": BEGIN + 9, "i": 1}}},
        "reason": "history_lost",
    }
    assert parse_message_id(marker.id) == MessageId(mark_token(9), 2, "gap")
    assert namespace_of(marker.body) == "shop.orders"
    assert marker.headers == (("Changewire-Gap", "history_lost"),)


@pytest.mark.parametrize(
    ("source", "namespace", "subject"),
    [(Source("shop"), {"db": "shop"}, "S.shop._.gap"), (Source(), None, "S._._.gap")],
)
def test_the_marker_of_a_database_or_the_deployment_names_no_collection(
    source: Source, namespace: dict[str, str] | None, subject: str
) -> None:
    scope = Watcher("scope", source, Sink("S", "{stream}.{database}.{collection}.{operation}"))
    marker = Gap("history_lost", event_token(3), mark_token(9), 2).marker(scope)
    assert json.loads(marker.body).get("ns") == namespace
    assert marker.subject == subject
    assert source.may_have_had(namespace_of(marker.body))


def test_a_gap_of_the_history_never_leads_back() -> None:
    assert history_gap(event_token(3), mark_token(4), 0).resumed == mark_token(4)
    for resumed in (event_token(3), mark_token(3), event_token(2)):
        with pytest.raises(HistoryLost):
            history_gap(event_token(3), resumed, 0)


# Where a watcher opens


def opening(tail: Tail, wish: OnHistoryLost, *, known: bool = True) -> object:
    facts = Facts(tail, STORED, REACHED if known else None, exclusive=True)
    return decide_opening(facts, StoredWatcher(replace(watcher(), on_history_lost=wish)), 1.0).beginning


@pytest.mark.parametrize("wish", ["latest", "earliest"])
def test_a_recreated_stream_is_gone_on_with_in_a_new_epoch(wish: OnHistoryLost) -> None:
    assert opening(Tail(LATER, 2, 0), wish) == Refill(event_token(8), 4, 2)
    assert opening(Tail(LATER, 2, 0), wish, known=False) == Refill(event_token(7), 4, 2)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("wish", ["fail", "latest", "earliest"])
def test_once_it_is_marked_the_new_stream_tells_the_position_though_the_checkpoint_is_of_the_old_one(
    wish: OnHistoryLost, known: bool
) -> None:
    marked = Tail(LATER, 1, 1, OwnMessage(1, MessageId(mark_token(2), 4, "gap")))
    assert opening(marked, wish, known=known) == GoOn(mark_token(2), 4, 1)


def test_a_recreated_stream_is_failed_where_nothing_else_was_asked_for() -> None:
    with pytest.raises(HistoryLost, match=r"recreated.*on_history_lost"):
        opening(Tail(LATER, 0, 0), "fail")


def test_a_marker_on_the_stream_is_a_position_like_any_other() -> None:
    marked = Tail(CREATED, 21, 21, OwnMessage(21, MessageId(mark_token(12), 3, "gap")))
    assert opening(marked, "latest") == GoOn(mark_token(12), 3, 21)


# A watcher


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> Fakes:
    monkeypatch.setattr("app.domain.backoff.LIMIT_SECONDS", 0.001)
    monkeypatch.setattr("app.pipeline.standby.LOOK_SECONDS", 0.001)
    return Fakes()


def task(fakes: Fakes, wish: str, **tuning: float) -> WatcherTask:
    """A watcher of an instance of its own."""
    stored = StoredWatcher(replace(watcher("orders"), on_history_lost=cast("OnHistoryLost", wish)))
    return fakes.task(stored, **tuning)


def markers(fakes: Fakes) -> list[FakeMessage]:
    return [message for message in fakes.stream().messages if message.change.operation == "gap"]


async def lose_history(fakes: Fakes) -> tuple[str, list[str]]:
    """Publish a change, stop, and let the oplog move on over two others; returns the one, and two that are left."""
    one = task(fakes, "fail")
    one.start()
    await until(lambda: one.state is State.RUNNING)
    published = fakes.oplog.happen()
    await until(lambda: fakes.stream().messages)
    await one.stop(2)
    place = fakes.mongo.places[PLACE]
    place["newest"] = replace(place["newest"], token=published)  # a quiet moment would be within the gap's second
    for _ in range(3):
        fakes.oplog.happen()
    left = [fakes.oplog.happen() for _ in range(2)]
    fakes.oplog.first = 5
    fakes.oplog.events = fakes.oplog.events[4:]
    return published, left


async def recreate_stream(fakes: Fakes) -> tuple[str, list[str]]:
    """Publish a change, stop, delete the stream and make another; returns the change, and what the oplog has."""
    one = task(fakes, "fail")
    one.start()
    await until(lambda: one.state is State.RUNNING)
    published = fakes.oplog.happen()
    await until(lambda: fakes.stream().messages)
    await one.stop(2)
    waiting = fakes.oplog.happen()
    stream = fakes.stream()
    stream.messages, stream.last_sequence, stream.ids, stream.created = [], 0, set(), LATER
    return published, [published, waiting]


LOSSES = pytest.mark.parametrize("lose", [lose_history, recreate_stream])
Lose = Callable[[Fakes], object]


@LOSSES
async def test_fail_is_failed_and_publishes_nothing(fakes: Fakes, lose: Lose) -> None:
    await lose(fakes)  # type: ignore[misc]
    before = fakes.stream().published()
    one = task(fakes, "fail")
    one.start()
    await until(lambda: one.state is State.FAILED)
    assert fakes.stream().published() == before


async def test_earliest_goes_on_from_the_oplogs_beginning_behind_one_marker(fakes: Fakes) -> None:
    published, left = await lose_history(fakes)
    one = task(fakes, "earliest")
    one.start()
    await until(lambda: len(fakes.stream().messages) == 4)
    assert fakes.stream().published() == [published, mark_token(5), *left]
    (marker,) = markers(fakes)
    assert marker.subject == "ORDERS.gap"
    body = json.loads(marker.change.body)
    assert (body["from"]["token"], body["to"]["token"]) == (published, mark_token(5))
    assert any("gap" in note for note in one.status().notes)
    assert one.state is State.RUNNING
    await one.stop(2)
    assert fakes.mongo.places[PLACE]["newest"].epoch == 0


async def test_the_position_behind_a_marker_is_stored_before_anything_is_read(
    fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the marker is consumed, nothing else tells that the gap is left behind."""
    await lose_history(fakes)
    stored: list[str] = []

    def look(_observer: NullObserver, _watcher: str, state: State) -> None:
        if state is State.RUNNING:
            stored.append(fakes.mongo.places[PLACE]["newest"].token)

    monkeypatch.setattr(NullObserver, "state", look)
    one = task(fakes, "earliest")
    one.start()
    await until(lambda: one.state is State.RUNNING)
    await one.stop(2)
    assert stored == [mark_token(5)]


async def test_latest_goes_on_from_now_behind_one_marker(fakes: Fakes) -> None:
    published, _ = await lose_history(fakes)
    one = task(fakes, "latest")
    one.start()
    await until(lambda: markers(fakes))
    after = fakes.oplog.happen()
    await until(lambda: len(fakes.stream().messages) == 3)
    assert fakes.stream().published() == [published, mark_token(7), after]
    await one.stop(2)


@pytest.mark.parametrize(("wish", "first"), [("earliest", 1), ("latest", 3)])
async def test_a_recreated_stream_gets_the_marker_first_in_a_new_epoch(fakes: Fakes, wish: str, first: int) -> None:
    published, there = await recreate_stream(fakes)
    one = task(fakes, wish)
    one.start()
    await until(lambda: markers(fakes))
    after = fakes.oplog.happen()
    expected = [mark_token(first), *(there if wish == "earliest" else []), after]
    await until(lambda: len(fakes.stream().messages) == len(expected))
    assert fakes.stream().published() == expected
    assert {parse_message_id(message.change.id).epoch for message in fakes.stream().messages} == {1}  # type: ignore[union-attr]
    assert json.loads(markers(fakes)[0].change.body)["reason"] == "stream_recreated"
    assert json.loads(markers(fakes)[0].change.body)["from"]["token"] >= published
    await one.stop(2)
    stored = fakes.mongo.places[PLACE]["newest"]
    assert (stored.epoch, stored.stream_created) == (1, LATER)


async def test_a_new_stream_on_which_others_publish_shows_its_marker_all_the_same(fakes: Fakes) -> None:
    """The checkpoint still tells of sequences of the old stream."""
    await recreate_stream(fakes)
    place = fakes.mongo.places[PLACE]
    old = place["newest"] = replace(place["newest"], sequence=100, own=None)
    one = task(fakes, "earliest")
    one.start()
    await until(lambda: len(fakes.stream().messages) == 3)
    await one.stop(2)
    place["newest"] = old
    fakes.stream().neighbour("ORDERS.insert")
    another = task(fakes, "earliest")
    another.start()
    await until(lambda: another.state is State.RUNNING)
    fakes.oplog.happen()
    await until(lambda: len(fakes.stream().messages) == 5)
    assert len(markers(fakes)) == 1
    await another.stop(2)


# Whatever becomes of publishing it


@LOSSES
@pytest.mark.parametrize("wish", ["latest", "earliest"])
@pytest.mark.parametrize("deed", ["ok", "timeout", "ack_lost", "late", "torn", "unavailable", "refused"])
@pytest.mark.parametrize("window", [True, False])
async def test_the_marker_is_there_once_whatever_its_publish_comes_to(
    fakes: Fakes, lose: Lose, wish: str, deed: Deed, window: bool
) -> None:
    _, left = await lose(fakes)  # type: ignore[misc]
    stream = fakes.stream()
    before = stream.published()
    stream.faults = deque([deed, deed])
    if not window:
        stream.before_publish = stream.forget_ids
    one = task(fakes, wish)
    one.start()
    await until(lambda: one.state is State.RUNNING)
    after = fakes.oplog.happen()
    await until(lambda: stream.published()[-1:] == [after])
    await one.stop(2)
    stream.arrive_late()
    (marker,) = markers(fakes)
    assert stream.published() == [*before, marker.change.token, *(left if wish == "earliest" else []), after]


@LOSSES
@pytest.mark.parametrize("wish", ["latest", "earliest"])
@pytest.mark.parametrize("window", [True, False])
async def test_the_marker_is_there_once_though_the_process_dies_at_any_step(
    fakes: Fakes, lose: Lose, wish: str, window: bool
) -> None:
    """Killed after 0, 1, 2, ... turns of the event loop; another process goes on from what that has left."""
    _, left = await lose(fakes)  # type: ignore[misc]
    stream, oplog, place = fakes.stream(), fakes.oplog, fakes.mongo.places[PLACE]
    stored, messages, last, ids = place["newest"], list(stream.messages), stream.last_sequence, set(stream.ids)
    before, happened, now = stream.published(), list(oplog.events), oplog.moment
    met = set()
    for steps in range(60):
        place["newest"], stream.messages, stream.last_sequence = stored, list(messages), last
        stream.ids, oplog.events, oplog.moment = set(ids), list(happened), now
        one = task(fakes, wish)
        one.start()
        for _ in range(steps):
            await asyncio.sleep(0)
        await kill()
        met.add((len(markers(fakes)), place["newest"] != stored))
        if not window:
            stream.forget_ids()
        one = task(fakes, wish)
        one.start()
        await until(lambda: one.state is State.RUNNING)  # noqa: B023 - awaited in the same round
        after = oplog.happen()
        await until(lambda: stream.published()[-1:] == [after])  # noqa: B023
        await one.stop(2)
        (marker,) = markers(fakes)
        assert stream.published() == [*before, marker.change.token, *(left if wish == "earliest" else []), after]
    assert met == {(0, False), (1, False), (1, True)}, "killed before it was stored, between the two, and after both"


@LOSSES
@pytest.mark.parametrize("wish", ["latest", "earliest"])
@pytest.mark.parametrize("later", [0, 1, 2, 4, 8, 16])
async def test_two_instances_mark_a_gap_once(fakes: Fakes, lose: Lose, wish: str, later: int) -> None:
    _, left = await lose(fakes)  # type: ignore[misc]
    before = fakes.stream().published()
    pair = [task(fakes, wish), task(fakes, wish)]
    pair[0].start()
    for _ in range(later):
        await asyncio.sleep(0)
    fakes.oplog.happen("modify")  # not to be published; the second finds another "now" than the first
    pair[1].start()
    for one in pair:
        await until(lambda: one.state in (State.RUNNING, State.FENCED))  # noqa: B023 - awaited in the same round
    after = fakes.oplog.happen()
    await until(lambda: fakes.stream().published()[-1:] == [after])
    for one in pair:
        await one.stop(2)
    (marker,) = markers(fakes)
    assert fakes.stream().published() == [*before, marker.change.token, *(left if wish == "earliest" else []), after]


async def test_a_marker_that_was_consumed_is_not_published_again_while_its_id_is_known(fakes: Fakes) -> None:
    _, left = await lose_history(fakes)
    stream, place = fakes.stream(), fakes.mongo.places[PLACE]
    stored = place["newest"]
    one = task(fakes, "earliest")
    one.start()
    await until(lambda: len(stream.messages) == 4)
    await one.stop(2)
    del stream.messages[1:]
    stream.last_sequence, place["newest"] = 1, stored  # so that only the ids tell
    ids = set(stream.ids)
    one = task(fakes, "earliest")
    one.start()
    await until(lambda: one.state is State.RUNNING)
    after = fakes.oplog.happen()
    await until(lambda: stream.published()[-1:] == [after])
    assert not markers(fakes)
    assert len(left) == 2
    assert ids < stream.ids
    await one.stop(2)


# In the middle of reading, and at its edges


@pytest.mark.parametrize("wish", ["fail", "earliest"])
async def test_what_was_read_before_the_oplog_overtook_the_cursor_is_published_first(fakes: Fakes, wish: str) -> None:
    one = task(fakes, wish)
    one.start()
    await until(lambda: one.state is State.RUNNING)
    first = fakes.oplog.happen()
    await until(lambda: fakes.stream().messages)
    reading, done = asyncio.Event(), asyncio.Event()
    read = FakeSource.read

    async def overtaken(self: FakeSource):
        reading.set()
        batch = await read(self)
        if batch.events and not done.is_set():
            done.set()
            for _ in range(3):
                fakes.oplog.happen()
            fakes.oplog.first = fakes.oplog.moment
            fakes.oplog.events = fakes.oplog.events[-1:]
        return batch

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FakeSource, "read", overtaken)
        await reading.wait()
        second = fakes.oplog.happen()
        await until(lambda: one.state is State.FAILED or markers(fakes))
    if wish == "fail":
        assert fakes.stream().published() == [first, second]
        assert one.status().reason == "the oplog does not reach back to the position"
        return
    await until(lambda: len(fakes.stream().messages) == 4)
    assert fakes.stream().published() == [first, second, mark_token(fakes.oplog.first), fakes.oplog.tokens[-1]]
    await one.stop(2)


async def test_an_oplog_that_moves_on_while_it_is_opened_is_tried_again(
    fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    await lose_history(fakes)
    located, times = FakeSource.locate, 0

    async def moving(self: FakeSource, start) -> str:
        nonlocal times
        times += 1
        token = await located(self, start)
        if times == 1:
            fakes.oplog.first = 7
        return token

    monkeypatch.setattr(FakeSource, "locate", moving)
    one = task(fakes, "earliest")
    one.start()
    await until(lambda: one.state is State.RUNNING)
    assert [message.change.token for message in markers(fakes)] == [mark_token(7)]
    assert State.RETRYING in fakes.observers[-1].states
    await one.stop(2)


async def test_a_standby_that_the_oplog_has_overtaken_takes_over_and_marks_the_gap(fakes: Fakes) -> None:
    one = task(fakes, "latest", losses=1, silence_seconds=0.01)
    one.start()
    await until(lambda: one.state is State.RUNNING)
    stream = fakes.stream()
    await _outrun(fakes)
    await until(lambda: one.state is State.FENCED)
    fakes.oplog.misfortune = SinkUnavailable("a pause, in which the oplog moves on")
    await until(lambda: one.status().last_error is not None)
    for _ in range(20):
        fakes.oplog.happen()
    fakes.oplog.first = fakes.oplog.moment
    fakes.oplog.misfortune = None
    await until(lambda: markers(fakes))
    after = fakes.oplog.happen()
    await until(lambda: stream.published()[-1:] == [after])
    assert len(markers(fakes)) == 1
    await one.stop(2)


async def _outrun(fakes: Fakes) -> None:
    outrun(fakes)
    fakes.oplog.happen()
    await until(lambda: fakes.stream().messages)


async def test_a_beginning_that_may_not_be_read_is_failed_with_that_reason(
    fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    await lose_history(fakes)

    async def forbidden(*_: object) -> str:
        raise NotAuthorised("grant it read on local")

    monkeypatch.setattr(FakeSource, "locate", forbidden)
    one = task(fakes, "earliest")
    one.start()
    await until(lambda: one.state is State.FAILED)
    assert one.status().reason == "grant it read on local"
    assert not markers(fakes)
