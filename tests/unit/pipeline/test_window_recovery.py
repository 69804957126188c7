"""A window in which another message took the place of a change: nothing goes on behind the hole, ever."""

from collections.abc import Sequence

import pytest

from app.control.positions import Positions
from app.control.watcher_task import WatcherTask
from app.domain.errors import OutcomeUnknown, SinkUnavailable, StoreUnavailable
from app.domain.events import Change
from app.domain.lifecycle import State
from app.domain.position import OwnMessage, Tail
from app.domain.watcher import Start, StoredWatcher
from tests.fakes import FakeCheckpoints, FakeSink, mark_token
from tests.unit.deployment import Fakes, until, watcher


class Window(FakeSink):
    """Publishes like a window, in the first of which the second message's place gets taken."""

    intact = True
    harmless = False
    down: Exception | None = None

    async def publish(self, changes: Sequence[Change], fence: int) -> int:
        if Window.intact or len(changes) < 3:
            return await super().publish(changes, fence)
        Window.intact = True
        for index, change in enumerate(changes):
            if index == 1 and not Window.harmless:
                self._stream.neighbour("ORDERS.insert")
            else:
                self._stream.store([("ORDERS.insert", change)], fence + index, "ORDERS.*")
        error = OutcomeUnknown("only a part of the changes is stored")
        error.unsettled = ((fence + 2, changes[1].id),)
        raise error

    async def tail(self, since: int = 0) -> Tail:
        if Window.intact and Window.down is not None:
            error, Window.down = Window.down, None
            raise error
        return await super().tail(since)


def instance(fakes: Fakes) -> WatcherTask:
    """The one watcher in a process of its own."""
    return fakes.task(StoredWatcher(watcher()))


async def reaches(one: WatcherTask, state: State) -> None:
    await until(lambda: one.state is state)


@pytest.fixture
async def fakes(monkeypatch: pytest.MonkeyPatch) -> Fakes:
    """A watcher that has begun, and five changes that make a window."""
    monkeypatch.setattr("tests.fakes.servers.FakeSink", Window)
    for name, value in (("intact", True), ("harmless", False), ("down", None)):
        monkeypatch.setattr(Window, name, value)
    fakes = Fakes()
    first = instance(fakes)
    first.start()
    await reaches(first, State.RUNNING)
    await first.stop(2)
    for _ in range(5):
        fakes.oplog.happen()
    Window.intact = False
    return fakes


def stored_unsettled(fakes: Fakes) -> tuple[OwnMessage, ...]:
    return fakes.mongo.places["resume-tokens.orders"]["newest"].unsettled


async def test_a_hole_is_remembered_over_resume_and_restart_until_the_position_is_moved(fakes: Fakes) -> None:
    one = instance(fakes)
    one.start()
    await reaches(one, State.FAILED)
    there = fakes.stream().published()
    for again in (one, instance(fakes)):
        again.start()
        await reaches(again, State.FAILED)
        reason = again.status().reason
        assert reason is not None
        assert fakes.oplog.tokens[1] in reason
    assert fakes.stream().published() == there

    await Positions(fakes.dependencies()).move(watcher(), Start("token", mark_token(1)))
    assert stored_unsettled(fakes) == ()
    one.forget_position()
    one.start()
    await until(lambda: fakes.stream().published()[-5:] == fakes.oplog.tokens)
    assert one.state is State.RUNNING
    await one.stop(2)


@pytest.mark.parametrize("trouble", ["the stream cannot be read", "the doubt cannot be stored"])
async def test_a_hole_is_remembered_over_a_passing_trouble(
    fakes: Fakes, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    if trouble == "the stream cannot be read":
        Window.down = SinkUnavailable("connection lost")
    else:

        async def unavailable(*_: object) -> None:
            monkeypatch.setattr(FakeCheckpoints, "keep_unsettled", available)
            raise StoreUnavailable("no primary")

        available = FakeCheckpoints.keep_unsettled
        monkeypatch.setattr(FakeCheckpoints, "keep_unsettled", unavailable)
    one = instance(fakes)
    one.start()
    await reaches(one, State.FAILED)
    assert one.status().restarts == 1


async def test_a_place_that_the_same_change_took_is_no_hole(fakes: Fakes) -> None:
    Window.harmless = True
    one = instance(fakes)
    one.start()
    await until(lambda: fakes.stream().published() == fakes.oplog.tokens and stored_unsettled(fakes) == ())
    token = fakes.oplog.happen()
    await until(lambda: fakes.stream().published()[-1] == token)
    assert one.state is State.RUNNING
    await one.stop(2)
