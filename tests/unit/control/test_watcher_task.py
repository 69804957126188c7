"""One watcher's task: what ends it, what starts it again, and who takes over from whom."""

import asyncio
import functools
from collections import deque
from dataclasses import replace

import pytest

from app.control.watcher_task import WatcherTask
from app.domain.errors import (
    HistoryLost,
    NotAuthorised,
    PermanentError,
    PositionUndecidable,
    ScopeMismatch,
    SinkUnavailable,
    SourceRefused,
    SourceUnavailable,
    StreamUnsuitable,
    TokenRefused,
)
from app.domain.lifecycle import State
from app.domain.position import Checkpoint
from app.domain.watcher import StoredWatcher
from app.formats.extended_json import encode
from tests.fakes import FakeCheckpoints, FakeSink, FakeSource, NullObserver, event_token
from tests.unit.deployment import Fakes, outrun, until, until_state, watcher

STORED = StoredWatcher(watcher("orders"))


@pytest.fixture
def fakes() -> Fakes:
    return Fakes()


def task(fakes: Fakes, **tuning) -> WatcherTask:
    return fakes.task(STORED, **tuning)


async def test_trouble_is_retried_until_it_passes(fakes: Fakes) -> None:
    one = task(fakes)
    fakes.oplog.faults = deque([SourceUnavailable("connection refused")] * 3)
    one.start()
    one.start()
    await until(lambda: one.state is State.RUNNING)
    status = one.status()
    assert status.restarts == 3
    assert status.last_error is not None
    assert (status.last_error.type, status.last_error.count) == ("SourceUnavailable", 3)
    assert State.RETRYING in fakes.observers[0].states
    await one.stop(2)
    assert one.state is State.PAUSED


async def test_a_permanent_error_that_comes_again_is_failed_with_its_reason(fakes: Fakes) -> None:
    one = task(fakes)
    fakes.oplog.misfortune = HistoryLost("the oplog begins later")
    one.start()
    await until(lambda: one.state is State.FAILED)
    assert one.status().reason == "the oplog begins later"
    assert fakes.observers[0].states[-2:] == [State.RETRYING, State.FAILED]


@pytest.mark.parametrize("kind", [PermanentError, PositionUndecidable, ScopeMismatch])
async def test_what_the_service_has_found_out_by_itself_is_failed_at_once(
    fakes: Fakes, kind: type[PermanentError]
) -> None:
    """It may not show a second time: after an order that cannot be kept the next opening begins behind it."""
    one = task(fakes)
    fakes.oplog.faults = deque([kind("found out")])
    one.start()
    await until(lambda: one.state is State.FAILED)
    assert one.status().restarts == 0


@pytest.mark.parametrize("kind", [HistoryLost, NotAuthorised, SourceRefused, TokenRefused, StreamUnsuitable])
async def test_a_permanent_error_that_does_not_come_again_is_a_trouble_that_passed(
    fakes: Fakes, monkeypatch: pytest.MonkeyPatch, kind: type[PermanentError]
) -> None:
    monkeypatch.setattr(kind, "confirm_seconds", 60.0)
    one = task(fakes)
    fakes.oplog.faults = deque([kind("in a bad moment")] * 3)
    one.start()
    await until(lambda: one.state is State.RUNNING)
    fakes.oplog.happen()
    await until(lambda: fakes.stream().published() == fakes.oplog.tokens)
    assert State.FAILED not in fakes.observers[0].states
    await one.stop(2)


@pytest.mark.parametrize("lags", [True, False])
async def test_a_checkpoint_ahead_of_the_server_is_refused_only_where_it_stays_so(
    fakes: Fakes, monkeypatch: pytest.MonkeyPatch, lags: bool
) -> None:
    """A mongos or a new primary may lag with its operationTime; another deployment stays behind."""
    monkeypatch.setattr("app.domain.backoff.LIMIT_SECONDS", 0.2 if lags else 0.001)  # long enough to be seen
    ahead = Checkpoint(event_token(5), epoch=0)
    fakes.mongo.places["resume-tokens.orders"] = {"newest": ahead}
    one = task(fakes)
    one.start()
    if lags:
        await until(lambda: one.state is State.RETRYING)
        for _ in range(5):
            fakes.oplog.happen()
    await until(lambda: one.state is (State.RUNNING if lags else State.FAILED))
    assert State.RETRYING in [happening.state for happening in one.statistics.history]
    await one.stop(2)


async def test_a_surprise_is_told_as_ours_and_retried(fakes: Fakes) -> None:
    one = task(fakes)
    fakes.oplog.faults = deque([ZeroDivisionError("secret in a surprise")])
    one.start()
    await until(lambda: one.state is State.RUNNING)
    error = one.status().last_error
    assert error is not None
    assert error.type == "ZeroDivisionError"
    told = [error.message, *(happening.reason for happening in one.statistics.history)]
    assert not [text for text in told if "secret" in (text or "")]
    await one.stop(2)


async def test_a_task_that_is_killed_from_inside_is_news(fakes: Fakes, monkeypatch: pytest.MonkeyPatch) -> None:
    one = task(fakes)
    monkeypatch.setattr(NullObserver, "restarted", lambda *_: 1 / 0)
    fakes.oplog.faults = deque([SourceUnavailable("connection refused")])
    one.start()
    await until(lambda: one.state is State.FAILED)


@pytest.mark.parametrize(
    ("place", "method"),
    [(FakeSource, "open"), (FakeSource, "read"), (FakeSink, "publish"), (FakeCheckpoints, "advance")],
)
async def test_a_part_of_the_relay_that_is_cancelled_from_within_is_retried(
    fakes: Fakes, monkeypatch: pytest.MonkeyPatch, place: type, method: str
) -> None:
    one = task(fakes)
    if method != "open":
        one.start()
        await until(lambda: one.state is State.RUNNING)
    real = getattr(place, method)

    async def cancelled(*_: object) -> None:
        monkeypatch.setattr(place, method, real)
        raise asyncio.CancelledError

    monkeypatch.setattr(place, method, cancelled)
    if method == "open":
        one.start()
        await until(lambda: one.state is State.RUNNING)
    token = fakes.oplog.happen()
    await until(lambda: one.status().restarts == 1 and one.state is State.RUNNING)
    await until(lambda: fakes.stream().published() == [token])
    assert await one.stop(2)


async def test_a_call_that_takes_too_long_after_a_lost_connection_is_retried(
    fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the failed part of a capture leaves behind in the watcher's task does not turn a timeout into its end."""
    one = task(fakes)
    one.start()
    await until(lambda: one.state is State.RUNNING)
    prepare, slow = FakeSink.prepare, 2

    async def in_time(sink: FakeSink, *, may_create: bool) -> None:
        nonlocal slow
        if slow:
            slow -= 1
            try:
                async with asyncio.timeout(0.001):
                    await asyncio.Event().wait()
            except TimeoutError as error:
                raise SinkUnavailable("no answer in time") from error
        await prepare(sink, may_create=may_create)

    monkeypatch.setattr(FakeSink, "prepare", in_time)
    for _ in range(2):
        fakes.stream().faults = deque(["unavailable"])
        fakes.oplog.happen()
        await until(lambda: fakes.stream().published() == fakes.oplog.tokens)
        slow = 2
    assert await one.stop(2)


async def test_stopping_waits_for_what_is_in_flight(fakes: Fakes) -> None:
    one = task(fakes)
    one.start()
    await until(lambda: one.state is State.RUNNING)
    tokens = [fakes.oplog.happen() for _ in range(50)]
    await until(lambda: fakes.stream().messages)
    assert await one.stop(5)
    published = fakes.stream().published()
    assert published == tokens[: len(published)]
    stored = fakes.mongo.places["resume-tokens.orders"]["newest"]
    assert stored.token >= published[-1]


async def test_a_drain_that_cannot_finish_is_cut_at_its_deadline(fakes: Fakes, monkeypatch: pytest.MonkeyPatch) -> None:
    one = task(fakes)
    one.start()
    await until(lambda: one.state is State.RUNNING)
    stuck, reached = asyncio.Event(), asyncio.Event()

    async def never(*_: object) -> int:
        reached.set()
        await stuck.wait()
        return 0

    monkeypatch.setattr(FakeSink, "publish", never)
    fakes.oplog.happen()
    await reached.wait()
    assert not await one.stop(0.05)
    assert one.state is State.PAUSED


async def test_a_writer_that_keeps_losing_stands_by_and_takes_over_from_the_dead(fakes: Fakes) -> None:
    one = task(fakes, losses=2, silence_seconds=0.3)
    one.start()
    await until(lambda: one.state is State.RUNNING)
    stream = fakes.stream()
    rival_alive = True

    def rival() -> None:
        """Somebody else publishes everything first, one moment before us."""
        if not rival_alive:
            return
        have = set(stream.published())
        missing = [("ORDERS.insert", encode(raw)) for token, raw in fakes.oplog.events if token not in have]
        if missing:
            stream.store(missing, stream.last_sequence, STORED.watcher.space)

    stream.before_publish = rival
    for _ in range(2):
        count = len(stream.messages)
        fakes.oplog.happen()
        await until(functools.partial(lambda before: len(stream.messages) > before, count))
    await until(lambda: one.state is State.FENCED)
    stream.before_publish = None
    fakes.oplog.happen()
    rival()
    rival_alive = False
    waiting = fakes.oplog.happen()
    await until(lambda: one.state is State.RUNNING, 20)
    await until(lambda: stream.published()[-1:] == [waiting])
    assert stream.published() == fakes.oplog.tokens
    assert "takeover" in fakes.observers[0].restarts
    await one.stop(2)


async def fenced(fakes: Fakes, **tuning) -> WatcherTask:
    """A writer that has just lost its races."""
    one = task(fakes, losses=1, **tuning)
    one.start()
    await until(lambda: one.state is State.RUNNING)
    outrun(fakes)
    fakes.oplog.happen()
    await until(lambda: one.state is State.FENCED)
    return one


async def interrupt(fakes: Fakes, one: WatcherTask, error: Exception) -> None:
    """Let MongoDB fail until the watcher has noticed."""
    fakes.oplog.misfortune = error
    await until(lambda: one.status().last_error is not None)
    fakes.oplog.misfortune = None
    assert one.state is State.FENCED
    seen = one.status().last_error
    assert seen is not None
    assert seen.type == type(error).__name__


async def test_a_standby_outlasts_a_surprise_as_a_relay_does(fakes: Fakes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.pipeline.standby.LOOK_SECONDS", 0.001)
    one = await fenced(fakes, silence_seconds=0.01)
    await interrupt(fakes, one, ZeroDivisionError("a surprise"))
    token = fakes.oplog.happen()
    await until(lambda: fakes.stream().published()[-1] == token)
    await one.stop(2)


@pytest.mark.parametrize(("stable", "attempts"), [(0, [1, 1, 1]), (30, [1, 2, 3])])
async def test_the_backoff_of_a_standby_starts_afresh_after_a_long_quiet_time(
    fakes: Fakes, monkeypatch: pytest.MonkeyPatch, stable: float, attempts: list[int]
) -> None:
    monkeypatch.setattr("app.pipeline.standby.LOOK_SECONDS", 0.001)
    monkeypatch.setattr("app.control.watcher_task.STABLE_SECONDS", stable)
    seen: list[int] = []

    def delay(attempt: int, draw: float) -> float:
        seen.append(attempt)
        return 0.001

    monkeypatch.setattr("app.control.watcher_task.backoff.delay", delay)
    one = await fenced(fakes, silence_seconds=60)
    fakes.oplog.misfortune = SourceUnavailable("no primary")
    await until(lambda: len(seen) >= 3)
    fakes.oplog.misfortune = None
    assert seen[:3] == attempts
    assert one.state is State.FENCED
    await one.stop(2)


async def test_a_standby_goes_by_the_checkpoint_where_the_oplog_has_passed_its_own_position(
    fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other writer's checkpoint moves on in a long quiet time; then MongoDB is away for a moment."""
    monkeypatch.setattr("app.pipeline.standby.LOOK_SECONDS", 0.001)
    one = await fenced(fakes, silence_seconds=0.01)
    for _ in range(100):
        fakes.oplog.happen("modify")
    place = fakes.mongo.places["resume-tokens.orders"]
    place["newest"] = replace(place["newest"], token=event_token(fakes.oplog.moment))
    fakes.oplog.first = fakes.oplog.moment
    await interrupt(fakes, one, SourceUnavailable("no primary"))
    token = fakes.oplog.happen()
    await until(lambda: fakes.stream().published()[-1] == token)
    assert one.state is State.RUNNING
    await one.stop(2)


async def test_a_standby_that_is_no_longer_wanted_does_not_take_over(fakes: Fakes) -> None:
    one = task(fakes, losses=1, silence_seconds=0.1)
    one.start()
    await until(lambda: one.state is State.RUNNING)
    fakes.watchers.stored.clear()
    outrun(fakes)
    fakes.oplog.happen()
    await until(lambda: one.state is State.FENCED)
    fakes.oplog.happen()
    await until(lambda: not one.active, 20)
    assert one.state is State.FENCED
    assert len(fakes.stream().messages) == 1
    await one.stop(1)


async def test_one_watchers_trouble_is_not_anothers(fakes: Fakes) -> None:
    fakes.stream("BROKEN").exists = True
    fakes.stream("BROKEN").subjects = ["SOMETHING.else"]
    fakes.watchers.stored = {name: StoredWatcher(watcher(name)) for name in ("broken", "orders")}
    registry = fakes.registry()
    registry.start()
    await until_state(registry, "broken", State.FAILED)
    await until_state(registry, "orders", State.RUNNING)
    token = fakes.oplog.happen()
    await until(lambda: fakes.stream().messages)
    assert fakes.stream().published() == [token]
    await registry.close()
