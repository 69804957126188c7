"""Snapshots: how fast documents that exist come to the stream, what changes wait meanwhile, and what a crash repeats.

Drain and snapshot are measured with one watcher of one process by turns: changes wait while the process is frozen, and
are drained; then a run publishes every document. Each stream is read at the end (`check.snapshots`).
"""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any

from bench import check, workload
from bench.members import Instance
from bench.procfs import Moment, peak_mb, rss_mb
from bench.program import Program
from bench.report import Result
from bench.snapshots_rows import result_of
from bench.stage import Incomplete, Place, Stage
from bench.traffic import Traffic
from bench.workload import HEADLINE, LARGE, SMALL, Workload

RATE = 500
"""Changes a second beside a run."""
WARM_SECONDS = 2.0
LOOK_SECONDS = 0.05
RUN_UP = 5
"""One part in so many of the messages is not counted."""
MEGABYTE = Workload("megabyte", "documents of 1,000,000 bytes, by claim check", size=1_000_000)
FILTER = {"number": {"$mod": [100, 0]}}
PIPELINE = [{"$match": {"fullDocument.number": {"$gte": 0}}}]
AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured: documents of the usual size, rounds, kills, other watchers of a shared change stream."""

    documents: int
    rounds: int
    kills: int
    others: int
    patience: float
    """A longer time in which nothing moves ends it, in seconds."""


async def measure(stage: Stage, sizes: Sizes) -> Result:
    """Measure. Raises Incomplete where a stream does not hold what it has to."""
    section, few = _Section(stage, sizes), max(400, sizes.documents // 5)
    await section.quiet()
    await section.beside_changes("one watcher", [stage.place("snapshot")])
    shared = f"one of {sizes.others + 1} watchers of a shared change stream"
    await section.beside_changes(shared, stage.spread("snapshot_shared", sizes.others + 1))
    await section.killed()
    await section.other("documents of 300 bytes", SMALL, 4 * few)
    await section.other("documents of 16,000 bytes", LARGE, few // 8)
    await section.other(MEGABYTE.title, MEGABYTE, max(4, few // 500))
    await section.other("a filter that matches 1 %", HEADLINE, few, wish={"filter": FILTER}, one_in=100)
    await section.other("a watcher with a pipeline", HEADLINE, few, source={"pipeline": PIPELINE})
    await section.other(f"{AT_ONCE} runs at once", HEADLINE, few // 2, several=AT_ONCE)
    return result_of(section.data)


class _Section:
    """What is measured so far, and each step."""

    def __init__(self, stage: Stage, sizes: Sizes) -> None:
        self._stage, self._sizes = stage, sizes
        lists = ("drains", "runs", "beside", "kills", "others", "checked")
        self.data: dict[str, Any] = {name: [] for name in lists} | {"rate": RATE, "sizes": asdict(sizes)}

    async def quiet(self) -> None:
        """Drains and runs by turns, while nothing else happens."""
        stage, sizes, place = self._stage, self._sizes, self._stage.place("snapshot")
        instance = Instance("quiet")
        async with _running(stage, instance, [place]) as program:
            idle, written = rss_mb(program.pid), 0
            for number in range(sizes.rounds):
                events = sizes.documents if number == 0 else max(100, sizes.documents // 5)
                held = await stage.count([place])
                program.freeze()
                try:
                    await self._write(HEADLINE, [place], range(written, written + events))
                finally:
                    before = stage.moment(program.pid)
                    program.thaw()
                written += events
                await stage.until([place], held + events, sizes.patience)
                self._keep("drains", events=events, **await self._speed(before, program, [place], {place: held}))
                run = await self._run(instance, program, [place], {})
                self._keep("runs", documents=written, idle=idle, peak=peak_mb(program.pid), **run)
        await self._check(place, range(0), range(written))

    async def beside_changes(self, what: str, places: Sequence[Place]) -> None:
        """A run of the first place, while changes go on at a steady rate in turns over all."""
        stage, sizes, instance = self._stage, self._sizes, Instance("beside")
        await self._write(HEADLINE, places[:1], range(sizes.documents))
        async with _running(stage, instance, places) as program:
            async with Traffic(stage, places, RATE, sizes.patience, sizes.documents) as traffic:
                await asyncio.sleep(WARM_SECONDS)
                idle, began = rss_mb(program.pid), time.perf_counter()
                run = await self._run(instance, program, places[:1], {}, counted=False)
                ended = time.perf_counter()
                await traffic.all_here()
            peak, changes = peak_mb(program.pid), len(traffic.acknowledged)
        delays = {
            name: [
                (traffic.arrived[number] - at) * 1000
                for number, at in enumerate(traffic.acknowledged)
                if begin <= at < end
            ]
            for name, begin, end in (("before", began - WARM_SECONDS, began), ("during", began, ended))
        }
        written = len(delays["during"]) / (ended - began)
        self._keep("beside", what=what, idle=idle, peak=peak, written=written, delays=delays, **run)
        if len(places) == 1:
            await self._check(places[0], range(sizes.documents), range(sizes.documents, sizes.documents + changes))
        else:
            await stage.clear(places)

    async def killed(self) -> None:
        """Kill the process in the middle of a run, several times, and see what is read again."""
        stage, sizes, place = self._stage, self._sizes, self._stage.place("snapshot")
        instance = Instance("killed")
        await self._write(HEADLINE, [place], range(sizes.documents))
        record = stage.client[f"{place.database}_state"]["snapshots"]
        async with AsyncExitStack() as programs:
            program = await programs.enter_async_context(_running(stage, instance, [place]))
            await instance.ask("POST", f"/watchers/{place.stream}/snapshot", {})
            for number in range(sizes.kills):
                await stage.until([place], sizes.documents * (number + 1) // (sizes.kills + 1), sizes.patience)
                program.kill()
                there = await stage.count([place])
                planned = await asyncio.to_thread(record.find_one, {"_id": place.stream}) or {}
                program = await programs.enter_async_context(instance.start(stage, [place]))
                began = time.perf_counter()
                await stage.until([place], min(there, sizes.documents) + 1, sizes.patience)
                self._keep("kills", again=again(planned, there), seconds=time.perf_counter() - began)
            await stage.until([place], sizes.documents + 1, sizes.patience)
        await self._check(place, range(sizes.documents), range(sizes.documents, sizes.documents))

    async def other(
        self,
        what: str,
        load: Workload,
        documents: int,
        *,
        wish: Mapping[str, Any] | None = None,
        source: Mapping[str, Any] | None = None,
        one_in: int = 1,
        several: int = 1,
    ) -> None:
        """A run over other documents, or of another kind; or `several` at once."""
        stage, instance = self._stage, Instance("other")
        places = [stage.place("snapshot_other")] if several == 1 else stage.spread("snapshot_other", several)
        for place in places:
            await self._write(load, [place], range(documents))
        async with _running(stage, instance, places, source) as program:
            run = await self._run(instance, program, places, wish or {})
            if run["rows"] != len(places) * len(range(0, documents, one_in)):
                raise Incomplete(f"{what}: {run['rows']:,} rows of {documents:,} documents")
            self._keep("others", what=what, documents=documents * several, peak=peak_mb(program.pid), **run)
        await stage.clear(places)

    # What they are made of

    async def _write(self, load: Workload, places: Sequence[Place], numbers: range) -> None:
        await asyncio.to_thread(workload.write, load, [self._stage.collection(place) for place in places], numbers)
        await self._stage.settle()

    async def _run(
        self,
        instance: Instance,
        program: Program,
        places: Sequence[Place],
        wish: Mapping[str, Any],
        *,
        counted: bool = True,
    ) -> dict[str, Any]:
        """Begin a run of each place, wait for their ends, and return what they were like. `counted`: nothing else is
        published, so that the server's times of the messages tell the speed."""
        held = {place: await self._stage.count([place]) for place in places}
        before = self._stage.moment(program.pid)
        for place in places:
            await instance.ask("POST", f"/watchers/{place.stream}/snapshot", wish)
        rows = sum([await self._ended(instance, program, place) for place in places])
        seconds = time.perf_counter() - before.at
        if counted:
            speed = await self._speed(before, program, places, held)
        else:
            speed = {"per_second": rows / seconds}
        return {"rows": rows, "seconds": seconds} | speed

    async def _ended(self, instance: Instance, program: Program, place: Place) -> int:
        """Wait for the end of a run; return its rows."""
        moved, documents = time.monotonic(), -1
        while True:
            answer = await instance.answer(program, f"/watchers/{place.stream}")
            run = answer and answer["status"]["snapshot"]
            if run and run["state"] == "done":
                return int(run["documents"])
            if run and run["documents"] != documents:
                moved, documents = time.monotonic(), run["documents"]
            if (run and run["state"] != "running") or time.monotonic() - moved > self._sizes.patience:
                raise Incomplete(f"the snapshot of {place.stream} does not end: {run}")
            await asyncio.sleep(LOOK_SECONDS)

    async def _speed(
        self, before: Moment, program: Program, places: Sequence[Place], held: Mapping[Place, int]
    ) -> dict[str, Any]:
        """Messages a second since the streams held so many, by the server's times, and processor time of each."""
        span = self._stage.moment(program.pid).since(before)
        count, begun, ended = 0, [], []
        for place in places:
            last = await self._stage.count([place])
            first = held[place] + 1 + (last - held[place]) // RUN_UP
            times = [await self._stage.time_of(place, sequence) for sequence in (first, last)]
            count += last - first
            begun.append(times[0])
            ended.append(times[1])
        messages = sum([await self._stage.count([place]) - held[place] for place in places])
        return {
            "per_second": count / max(max(ended) - min(begun), 1e-6),
            "cpu_us": {name: used * 1e6 / max(1, messages) for name, used in span.used.items()},
            "others_share": span.others,
        }

    async def _check(self, place: Place, existing: range, changes: range) -> None:
        rows = await check.snapshots(self._stage, place, existing, changes)
        self.data["checked"].append([rows, len(changes)])
        await self._stage.clear([place])

    def _keep(self, step: str, **figures: Any) -> None:
        self.data[step].append(figures)
        parts = [(name, value) for name, value in figures.items() if not isinstance(value, dict)]
        shown = (f"{name} {value:,.2f}" if isinstance(value, float) else f"{name} {value}" for name, value in parts)
        print(f"  {step}: {', '.join(shown)}", flush=True)


@asynccontextmanager
async def _running(
    stage: Stage, instance: Instance, places: Sequence[Place], source: Mapping[str, Any] | None = None
) -> AsyncIterator[Program]:
    """The service with a watcher for each place; `source` are further fields of theirs."""
    bodies = [
        {
            "name": place.stream,
            "source": {"database": place.database, "collection": place.collection, **(source or {})},
            "sink": {"stream": place.stream, "replicas": stage.replicas},
        }
        for place in places
    ]
    async with instance.start(stage, places) as program:
        await instance.up(program)
        await instance.ask("POST", "/watchers", bodies)
        await instance.running(stage, places, program)
        yield program


def again(planned: Mapping[str, Any], there: int) -> int:
    """How many rows are read again after a crash, by what is stored of the run: those of the planned chunks of which
    the stream, which holds `there` rows, has not all."""
    left, rows = int(planned.get("documents", 0)) - there, 0
    for _, chunk in sorted(planned.get("chunks", {}).items(), key=lambda each: -int(each[0])):
        if left <= 0:
            break
        count = int(chunk["count"])
        rows, left = rows + count, left - count
    return rows
