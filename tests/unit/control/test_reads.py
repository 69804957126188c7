"""A read changes nothing: neither what a watcher goes on from, nor what the next read says."""

import asyncio
import copy
from typing import Any

import pytest

from app.control.dead_letters import DeadLetterService
from app.control.health import FleetHealth
from app.control.positions import Positions
from app.control.server_probe import ServerProbe
from app.control.watcher_task import WatcherTask
from app.domain.lifecycle import State
from app.domain.watcher import StoredWatcher
from tests.letters import spoilt_event
from tests.unit.deployment import Fakes, until, watcher

NOW = 1_700_000_100.0


class Instance:
    """One instance with one watcher, and everything that can be asked of it. Its clock stands at `NOW`."""

    def __init__(self, fakes: Fakes) -> None:
        dependencies = fakes.dependencies(clock=lambda: NOW)
        self.task = fakes.task(StoredWatcher(watcher("orders")), dependencies)
        self.probe = ServerProbe(dependencies.mongo, dependencies.nats)
        self.health = FleetHealth(dependencies, {"orders": self.task}, self.probe)
        self.letters = DeadLetterService(dependencies, self._task_of)
        self.positions = Positions(dependencies)
        self.observer = fakes.observers[-1]

    async def _task_of(self, name: str) -> WatcherTask:
        return self.task

    async def answers(self, *, at_once: bool = False) -> list[Any]:
        """What every read answers."""
        asked = [
            self._status(), self._health(), self.health.lag(self.task), self._history(), self._scrape(),
            self.positions.view(self.task.stored.watcher), self.letters.page("orders", after=0, limit=10),
            self.letters.get("orders", 1, 1000),
        ]  # fmt: skip
        return list(await asyncio.gather(*asked)) if at_once else [await each for each in asked]

    def known(self) -> tuple[Any, Any]:
        return copy.deepcopy((self.task.run_state, self.task.statistics))

    async def _status(self) -> Any:
        return self.task.status()

    async def _health(self) -> Any:
        return self.health.health(None)

    async def _history(self) -> Any:
        return list(self.task.statistics.history)

    async def _scrape(self) -> Any:
        self.health.observe_positions()
        return copy.deepcopy((self.observer.at_risk, self.observer.overdues, self.observer.letters))


async def after_a_run(fakes: Fakes) -> Instance:
    """An instance that has published and set aside a change, and is stopped since."""
    instance = Instance(fakes)
    instance.task.start()
    await until(lambda: instance.task.state is State.RUNNING)
    fakes.oplog.happen()
    token = fakes.oplog.happen()
    fakes.oplog.events[-1] = (token, spoilt_event(fakes.oplog.events[-1][1]))
    await until(lambda: instance.task.statistics.dead_letters == 1)
    await instance.task.stop(2)
    return instance


async def just_started(fakes: Fakes) -> Instance:
    """An instance that knows nothing of a watcher that has a stored position and a dead letter."""
    await after_a_run(fakes)
    instance = Instance(fakes)
    instance.task.pause()
    return instance


@pytest.mark.parametrize("begin", [after_a_run, just_started])
async def test_a_read_changes_nothing(fakes: Fakes, begin: Any) -> None:
    instance = await begin(fakes)
    before = instance.known()
    first = await instance.answers()
    assert instance.known() == before
    assert await instance.answers() == first
    assert await instance.answers(at_once=True) == first
    assert instance.known() == before


async def test_a_stored_position_is_noted_by_the_task_that_looks_at_it(
    fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For metrics, which never wait for a server."""
    monkeypatch.setattr("app.control.health.WATCH_SECONDS", 0.001)
    instance = await just_started(fakes)
    watching = asyncio.create_task(instance.health.watch(3600.0))
    await until(lambda: instance.task.statistics.stored_token is not None)
    watching.cancel()
    assert instance.task.statistics.stored_token == (await instance.positions.view(instance.task.stored.watcher)).token


async def test_dead_letters_that_were_removed_elsewhere_are_counted_again(
    fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An alert on them must not outlast them."""
    monkeypatch.setattr("app.control.health.WATCH_SECONDS", 0.001)
    instance = await after_a_run(fakes)
    elsewhere = Instance(fakes)
    total, (letter,) = await elsewhere.letters.page("orders", after=0, limit=10)
    assert (total, instance.task.status().dead_letters) == (1, 1)
    await elsewhere.letters.remove("orders", letter.sequence)
    await instance.probe.look()
    watching = asyncio.create_task(instance.health.watch(3600.0))
    await until(lambda: instance.task.status().dead_letters == 0)
    watching.cancel()
