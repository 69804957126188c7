"""Fan-out: what many watchers of one database cost beside one, and whether one of them can hold up the others.

Each row says what is asked and what was reached, for this version and for others out of their own trees. What a version
is too slow for, or does not know, its row says. The steps are in `fleet.py`.
"""

import asyncio
import threading
import time
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, dataclass
from typing import Any

from bench import check, workload
from bench.contenders import Changewire, Contender
from bench.fan_out_rows import result_of
from bench.fleet import Drained, Fleet, Idle, Refused, Running, Steady, made
from bench.report import Result
from bench.stage import Place, Stage
from bench.workload import HEADLINE

FAIR_WATCHERS, FAIR_RATE = 20, 100
"""Twenty watchers with five changes a second each."""
CHUNK = 500


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured: numbers of watchers, events of a drain, its rounds, inserts/s, and seconds of a rate."""

    numbers: Sequence[int]
    events: int
    rounds: int
    rates: Sequence[int]
    seconds: float
    patience: float
    """No step takes longer, in seconds."""


async def measure(
    stage: Stage, contenders: Sequence[Changewire], sizes: Sizes, others: Sequence[Contender] = ()
) -> Result:
    """Measure with so many watchers each; `others` watch a database as a whole.

    Raises Incomplete where a stream does not hold each event once."""
    section = _Section(stage, sizes)
    for number in range(sizes.rounds):
        for contender in contenders if number % 2 == 0 else [*contenders][::-1]:
            await section.drains(contender, number)
    for each in sizes.numbers:
        for contender in contenders:
            await section.whole(contender, each)
    for other in (*contenders, *others):
        await section.database(other)
    for contender in contenders:
        await section.as_list(contender)
        await section.fairness(contender)
    return result_of([each.name for each in (*contenders, *others)], section.data)


class _Section:
    """What is measured so far, and each step."""

    def __init__(self, stage: Stage, sizes: Sizes) -> None:
        self._stage, self._sizes = stage, sizes
        self._most = max(sizes.numbers)
        lists = ("drains", "added", "started", "idle", "steady", "fair", "refused", "too_slow")
        self.data: dict[str, Any] = asdict(sizes) | {name: [] for name in lists}

    def _made(self, contender: Contender, number: int, *, scope: bool = False) -> AbstractAsyncContextManager[Fleet]:
        return made(self._stage, contender, number, patience=self._sizes.patience, scope=scope)

    async def drains(self, contender: Changewire, number: int) -> None:
        """The drains of one round. The most watchers drain once, in `whole`: to add them takes longest; and two rounds
        suffice for what takes long to write."""
        for each in self._sizes.numbers:
            if each == 1 or (each != self._most and number < 2):
                async with self._made(contender, each) as fleet:
                    await self._drained(fleet, contender)
        # Once more in `database`.
        if number < min(2, self._sizes.rounds) - 1:
            async with self._made(contender, self._most, scope=True) as fleet:
                await self._drained(fleet, contender)

    async def _drained(self, fleet: Fleet, contender: Contender) -> bool:
        """Add and drain, in time; whether it was done."""
        if [contender.name, fleet.what] in self.data["too_slow"] or ["database", contender.name] in self._refused(
            fleet
        ):
            return False
        try:
            done = await fleet.ready() and self._keep("drains", await fleet.drain(self._sizes.events))
        except Refused:
            self.data["refused"].append(["database", contender.name])
            return False
        if done is None:
            self.data["too_slow"].append([contender.name, fleet.what])
        return done is not None

    def _refused(self, fleet: Fleet) -> list[list[str]]:
        return self.data["refused"] if fleet.places != fleet.sources else []

    async def whole(self, contender: Changewire, number: int) -> None:
        """All steps with one fleet: adding, draining the first time, starting, idling, and being written to."""
        name = contender.name
        async with self._made(contender, number) as fleet:
            added = await fleet.add()
            self.data["added"].append({"contender": name, "watchers": number, "seconds": added, "list": False})
            drained = number != self._most or number == 1
            if added is not None:
                print(f"  {name}, {fleet.what} added in {added[0]:.1f} s, RUNNING after {added[1]:.1f} s", flush=True)
                drained = drained or self._keep("drains", await fleet.drain(self._sizes.events)) is not None
            if added is None or not drained:
                self.data["too_slow"].append([name, fleet.what])
                return
            await self._at_work(fleet, contender, self._sizes.rates)

    async def database(self, contender: Contender) -> None:
        """One watcher of a database with the most collections: draining, idling, and written to. Another program than
        Changewire drains one collection too."""
        if not isinstance(contender, Changewire):
            async with self._made(contender, 1) as fleet:
                await self._drained(fleet, contender)
        async with self._made(contender, self._most, scope=True) as fleet:
            if await self._drained(fleet, contender):
                await self._at_work(fleet, contender, self._sizes.rates[:1])

    async def _at_work(self, fleet: Fleet, contender: Contender, rates: Sequence[int]) -> None:
        async with fleet.running() as running:
            seconds = None if running is None else running.seconds
            self.data["started"].append({"contender": contender.name, "what": fleet.what, "seconds": seconds})
            if running is not None:
                print(f"  {contender.name}, {fleet.what} at work after {seconds:.1f} s", flush=True)
                self._keep("idle", await running.idle(self._sizes.seconds))
                for rate in rates:
                    self._keep("steady", await running.steady(rate, self._sizes.seconds))

    async def as_list(self, contender: Changewire) -> None:
        """The most watchers, added in one call; where this version takes a list."""
        async with self._made(contender, self._most) as fleet:
            try:
                added = await fleet.add(as_list=True)
            except Refused:
                self.data["refused"].append(["list", contender.name])
                return
        run = {"contender": contender.name, "watchers": self._most, "seconds": added, "list": True}
        self.data["added"].append(run)

    async def fairness(self, contender: Changewire) -> None:
        """Some watchers alone, and while another collection is written as fast as it goes.

        One of another database shows what the writing takes of the machine, and with a watcher what the publishing
        takes. Those of the same database show what comes of sharing it: one that nobody watches, one with a watcher."""
        async with self._made(contender, FAIR_WATCHERS + 1) as fleet:
            *others, hot = fleet.sources
            beside = Place(f"{hot.database}_beside", "hot", f"{hot.stream}_BESIDE")
            fleet.places = [*fleet.sources, beside]
            if await fleet.add() is None:
                return
            async with fleet.running() as running:
                if running is None:
                    return
                for what, where in (
                    ("alone", None),
                    ("a hot collection of another database", Place(beside.database, "unwatched", "")),
                    ("a hot collection of another database, with a watcher", beside),
                    ("a hot collection that nobody watches", Place(hot.database, "unwatched", "")),
                    ("a hot collection with a watcher", hot),
                ):
                    words = what if where is None else f"beside {what}"
                    run, written = await _beside(running, words, others, where, self._sizes.seconds)
                    self.data["fair"].append(run)
                    if where is not None and where.stream:
                        await self._stage.until([where], written, self._sizes.patience)
                        await check.exactly(self._stage, [where], written)

    def _keep(self, name: str, run: Drained | Idle | Steady | None) -> Drained | Idle | Steady | None:
        if run is not None:
            self.data[name].append(asdict(run))
        return run


async def _beside(
    running: Running, what: str, places: Sequence[Place], hot: Place | None, seconds: float
) -> tuple[dict[str, Any], int]:
    """One run, and how many changes were made to the hot collection meanwhile."""
    stop = threading.Event()

    def write() -> int:
        count = 0
        while hot is not None and not stop.is_set():
            workload.write(HEADLINE, [running.stage.collection(hot)], range(count, count + CHUNK))
            count += CHUNK
        return count

    began, task = time.perf_counter(), asyncio.create_task(asyncio.to_thread(write), name="hot")
    try:
        run = await running.steady(FAIR_RATE, seconds, what=what, places=places)
    finally:
        stop.set()
        written = await task
    return asdict(run) | {"hot_written": written, "hot_seconds": time.perf_counter() - began}, written
