"""Several instances that share watchers: what changes wait when one dies, stops or joins, and what a second one costs.

All watchers are of one database, and changes go on at a steady rate, in turns over the collections. Who owns what is
read from the record that the instances keep; when a change is there, the streams tell. At the end each stream has to
hold each change once and in order.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bench import check, workload
from bench.instances_rows import result_of
from bench.members import Members, shared
from bench.procfs import Span
from bench.report import Result
from bench.stage import Stage
from bench.traffic import Traffic
from bench.workload import HEADLINE

RATE = 200
NAMES = ("one", "two", "three")
WARM_SECONDS = 2.0
"""How long changes are made before anything is done: until the watchers' rates are known."""
SETTLE_SECONDS = 1.0
"""How long is watched after each step, and how long what has just moved is left alone."""
IDLE_SECONDS = 3.0
"""Watchers that see nothing ask less and less often; so long is waited for it, at most."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured: watchers, kills, and rounds of what else repeats; events of a drain."""

    watchers: int
    kills: int
    rounds: int
    seconds: float
    """For how long mongod's processor time is measured, for each number of instances."""
    events: int
    patience: float
    """No step takes longer, in seconds."""


async def measure(stage: Stage, sizes: Sizes) -> Result:
    """Measure. Raises Incomplete where a stream does not hold each change once and in order."""
    section = _Section(stage, sizes)
    async with shared(stage, "instances", sizes.watchers, sizes.patience) as members:
        await section.comings_and_goings(members)
    async with shared(stage, "costs", sizes.watchers, sizes.patience) as members:
        await section.costs(members)
    return result_of(section.data)


class _Section:
    """What is measured so far, and each step."""

    def __init__(self, stage: Stage, sizes: Sizes) -> None:
        self._stage, self._sizes = stage, sizes
        lists = ("joins", "kills", "stops", "rolling", "mongod", "drains", "checked")
        self.data: dict[str, Any] = asdict(sizes) | {"rate": RATE} | {name: [] for name in lists}

    async def comings_and_goings(self, members: Members) -> None:
        """One instance, then two more; kills, stops, and rolling restarts of all three."""
        sizes = self._sizes
        members.start(NAMES[0])
        await members.add(NAMES[0])
        async with Traffic(self._stage, members.places, RATE, sizes.patience) as traffic:
            await asyncio.sleep(WARM_SECONDS)
            for name in NAMES[1:]:
                await self._joins(members, traffic, name)
            for number in range(sizes.rounds):
                await self._stops(members, traffic, NAMES[-1 - number % len(NAMES)])
            for _ in range(sizes.rounds):
                await self._rolling(members, traffic)
            for number in range(sizes.kills):
                await self._dies(members, traffic, NAMES[number % len(NAMES)])
        await self._check(members, len(traffic.acknowledged))

    async def _joins(self, members: Members, traffic: Traffic, name: str) -> None:
        began = time.perf_counter()
        members.start(name)
        await members.balanced()
        seconds = time.perf_counter() - began
        await self._settle(traffic)
        self._keep("joins", name=name, of=len(members.running), seconds=seconds, worst=traffic.worst(began))

    async def _dies(self, members: Members, traffic: Traffic, name: str) -> None:
        owned = await members.owned(name)
        began = await members.kill(name)
        seconds = await traffic.again(owned, began)
        await self._settle(traffic)
        self._keep("kills", name=name, watchers=len(owned), seconds=seconds, worst=traffic.worst(began))
        await self._joins(members, traffic, name)

    async def _stops(self, members: Members, traffic: Traffic, name: str) -> None:
        owned = await members.owned(name)
        began = time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(members.stop(name), name=f"stop {name}")
            await members.without(name)
            seconds = time.perf_counter() - began
        ended = time.perf_counter() - began
        await self._settle(traffic)
        worst = traffic.worst(began)
        self._keep("stops", name=name, watchers=len(owned), seconds=seconds, ended=ended, worst=worst)
        await self._joins(members, traffic, name)

    async def _rolling(self, members: Members, traffic: Traffic) -> None:
        began = time.perf_counter()
        for name in NAMES:
            await members.stop(name)
            members.start(name)
            await members.ready(name)
        seconds = time.perf_counter() - began
        await members.balanced()
        await self._settle(traffic)
        self._keep("rolling", seconds=seconds, worst=traffic.worst(began))

    async def costs(self, members: Members) -> None:
        """Processor time with one instance, with two, and with a second one that owns nothing; then drains."""
        sizes, (first, second, *_) = self._sizes, NAMES
        members.start(first)
        await members.add(first)
        written = 0
        for number in range(sizes.rounds):
            rates = (RATE, 0) if number == 0 else (RATE,)
            written += await self._used(members, "one", rates, written)
            members.start(second)
            await members.balanced()
            written += await self._used(members, "two", rates, written)
            await members.instance(first).ask("PUT", f"/instances/{second}/drain")
            await members.without(second)
            written += await self._used(members, "one and an idle one", rates, written)
            await members.instance(first).ask("DELETE", f"/instances/{second}/drain")
            await members.balanced()
            await members.stop(second)
        for _ in range(sizes.rounds):
            written += await self._drains(members, written)
            members.start(second)
            await members.balanced()
            await self._settle()
            written += await self._drains(members, written)
            await members.stop(second)
        await self._check(members, written)

    async def _used(self, members: Members, what: str, rates: Sequence[int], first: int) -> int:
        """Measure what is used at each rate; how many changes were made, the first with this number."""
        seconds, written = self._sizes.seconds, 0
        for rate in rates:
            if not rate:
                await asyncio.sleep(min(IDLE_SECONDS, 2 * seconds))
                before = members.moment()
                await asyncio.sleep(seconds)
                self._spent(what, rate, members.moment().since(before), 0)
                continue
            patience = self._sizes.patience
            async with Traffic(self._stage, members.places, rate, patience, first + written) as traffic:
                await asyncio.sleep(SETTLE_SECONDS)
                before, count = members.moment(), len(traffic.acknowledged)
                await asyncio.sleep(seconds)
                self._spent(what, rate, members.moment().since(before), len(traffic.acknowledged) - count)
            written += len(traffic.acknowledged)
        return written

    def _spent(self, what: str, rate: int, span: Span, events: int) -> None:
        self._keep(
            "mongod",
            what=what,
            rate=rate,
            cpu={name: used / span.seconds for name, used in span.used.items()},
            cpu_ms={name: used * 1000 / max(events, 1) for name, used in span.used.items()},
            events=events,
            others_share=span.others,
        )

    async def _drains(self, members: Members, first: int) -> int:
        """Let changes wait while all instances are frozen, and thaw them; how many there were.

        So nobody is measured while it starts, and a frozen instance is not replaced so quickly."""
        stage, events = self._stage, self._sizes.events
        held = await stage.count(members.places)
        collections = [stage.collection(place) for place in members.places]
        members.freeze()
        try:
            await asyncio.to_thread(workload.write, HEADLINE, collections, range(first, first + events))
        finally:
            before, began = members.moment(), time.time()
            members.thaw()
        await stage.until(members.places, held + events, self._sizes.patience)
        span, (_, last) = members.moment().since(before), await stage.times(members.places)
        self._keep(
            "drains",
            instances=len(members.running),
            rate=events / (last - began),
            cpu_us={name: used * 1e6 / events for name, used in span.used.items()},
            others_share=span.others,
        )
        return events

    async def _settle(self, traffic: Traffic | None = None) -> None:
        await asyncio.sleep(SETTLE_SECONDS)
        if traffic is not None:
            await traffic.all_here()

    async def _check(self, members: Members, changes: int) -> None:
        for name in [*members.running]:
            await members.stop(name)
        await check.exactly(self._stage, members.places, changes, ordered=True)
        self.data["checked"].append(changes)

    def _keep(self, step: str, **figures: Any) -> None:
        self.data[step].append(figures)
        parts = [(name, value) for name, value in figures.items() if not isinstance(value, dict)]
        shown = (f"{name} {value:,.2f}" if isinstance(value, float) else f"{name} {value}" for name, value in parts)
        print(f"  {step}: {', '.join(shown)}", flush=True)
