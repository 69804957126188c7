"""Many watchers of one database in one process: added, started, drained, left idle, and written to at a steady rate.

A fleet is a contender with its watchers, on collections that exist before. Every step is bounded in time: of a version
that is too slow for so many watchers it gives None.
"""

import asyncio
import http.client
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from bench import check, ends, workload
from bench.contenders import Changewire, Contender
from bench.procfs import Span, peak_mb, rss_mb, thread_seconds
from bench.program import Program
from bench.stage import Incomplete, Place, Stage
from bench.workload import HEADLINE
from bench.write import WARM

SETTLE_SECONDS = 5
"""Watchers that see nothing ask less and less often; that long it takes. A short run does not wait for it."""
TOKENS = "resume-tokens"
"""Where older versions keep the positions of watchers that name no place, by the names of their collections."""
PAUSE = 5
"""Between two questions this many times as long as the last answer took: asking must not be what is measured."""
PAUSE_MOST = 0.25
"""But no longer, in seconds: else what is measured is the pause."""


class Refused(Exception):
    """This version does not know what it was asked for (422)."""


@dataclass(frozen=True, slots=True)
class Drained:
    """One drain. Rates are in events/s by the server's times; `cpu_us` is processor time per event by process."""

    contender: str
    what: str
    events: int
    from_start: float
    from_first: float
    cpu_us: dict[str, float]
    peak_mb: float
    others_share: float
    threads_us: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Steady:
    """Events written at a rate. `cpu_us` and `oplog_bytes` are per event, `percentiles` in ms."""

    contender: str
    what: str
    rate: int
    events: int
    percentiles: dict[str, float]
    cpu_us: dict[str, float]
    oplog_bytes: float | None
    rss_mb: float
    others_share: float


@dataclass(frozen=True, slots=True)
class Idle:
    """Nothing written. `cpu` is in parts of one core by process."""

    contender: str
    what: str
    seconds: float
    cpu: dict[str, float]
    oplog_bytes_per_second: float | None
    rss_mb: float
    others_share: float
    reads: dict[str, int]
    """How many watchers say that they read from a shared change stream, or from their own and why."""


class Fleet:
    """A version of Changewire with so many watchers, or with one of a database (`scope`), which others can have too.

    Use `made` to have it removed afterwards."""

    def __init__(self, stage: Stage, contender: Contender, number: int, *, scope: bool, patience: float) -> None:
        self.number = number
        self.patience = patience
        """No step takes longer, in seconds."""
        self._stage, self._contender = stage, contender
        kind = "database" if scope else "fleet"
        self.sources = stage.spread(f"{kind}_{contender.name}", number)
        self.places = [Place(self.sources[0].database, "", self.sources[0].stream)] if scope else self.sources
        """What each watcher watches, and where it publishes; may be set before they are added."""
        self.what = f"a database of {number:,} collections" if scope else f"{number:,}"

    async def create(self) -> None:
        """Make the collections, which is mongod's work and nobody's who is measured."""
        await asyncio.to_thread(self._create)
        await self._stage.settle()

    def _create(self) -> None:
        database = self._stage.client[self.sources[0].database]
        for each in self.sources:
            database.create_collection(each.collection)

    @property
    def bodies(self) -> list[dict[str, Any]]:
        """The watchers as they are added, with every default."""
        return [
            {
                "name": place.stream,
                "source": {"database": place.database} | ({"collection": place.collection} if place.collection else {}),
                "sink": {"stream": place.stream, "replicas": self._stage.replicas},
            }
            for place in self.places
        ]

    async def add(self, *, as_list: bool = False) -> tuple[float, float] | None:
        """Start, add all watchers, one by one or in one call, until all are RUNNING, and stop.

        Returns the seconds of the calls, and until all are RUNNING. Raises Refused."""
        async with self._contender.start(self._stage, self.places) as program:
            await self._contender.up(program)
            assert isinstance(self._contender, Changewire)
            began = time.perf_counter()
            bodies = [self.bodies] if as_list else self.bodies
            if not await asyncio.to_thread(self._post, self._contender.port, bodies, began + self.patience):
                return None
            called = time.perf_counter() - began
            if not await self._all_run(program):
                return None
            return called, time.perf_counter() - began

    def _post(self, port: int, bodies: Sequence[Any], until: float) -> bool:
        """Over one connection; whether they were all added in time."""
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=self.patience)
        try:
            for body in bodies:
                if time.perf_counter() > until:
                    return False
                connection.request("POST", "/watchers", json.dumps(body), {"Content-Type": "application/json"})
                answer = connection.getresponse()
                said = answer.read()
                if answer.status == 422:
                    raise Refused(said.decode(errors="replace"))
                if answer.status // 100 != 2:
                    raise Incomplete(f"POST /watchers: {answer.status} {said.decode(errors='replace')}")
        except TimeoutError:
            return False
        finally:
            connection.close()
        return True

    async def _all_run(self, program: Program) -> bool:
        """Whether all watchers are RUNNING in time. Raises Incomplete where one has failed."""
        contender = self._contender
        if not isinstance(contender, Changewire):
            await contender.running(self._stage, self.sources[:1], program)
            return True

        async def asked() -> bool:
            # Not the list of watchers: to write a thousand of them again and again is work that nobody does at a start.
            answer = await contender.answer(program, "/healthz")
            return answer is not None and answer["components"]["watchers"].get("running", 0) == len(self.places)

        if await self._until(asked):
            return True
        for failed in await contender.answer(program, "/watchers?state=FAILED") or ():
            raise Incomplete(f"a watcher has failed: {failed}")
        return False

    async def ready(self) -> tuple[float, float] | None:
        """Bring it to where changes written from now on wait for it: what `add` does, or another program's own way."""
        if isinstance(self._contender, Changewire):
            return await self.add()
        await self._contender.prepare(self._stage, self.sources[:1])
        return 0.0, 0.0

    async def _until(self, good: Callable[[], Awaitable[bool]]) -> bool:
        deadline = time.monotonic() + self.patience
        while True:
            asked = time.monotonic()
            if await good():
                return True
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(min(PAUSE_MOST, max(0.02, PAUSE * (time.monotonic() - asked))))

    async def drain(self, events: int) -> Drained | None:
        """Write so many changes, in turns over the collections, then start and wait for the last message.

        Raises Incomplete where the streams do not end up with each change once."""
        stage = self._stage
        collections = [stage.collection(each) for each in self.sources]
        await asyncio.to_thread(workload.write, HEADLINE, collections, range(events))
        await stage.settle()
        before = stage.moment(0)
        async with self._contender.start(stage, self.places) as program:
            began = time.time() - (time.perf_counter() - program.began)

            async def arrived() -> bool:
                program.check()
                return await stage.count(self.places) >= events

            if not await self._until(arrived):
                return None
            span = stage.moment(program.pid).since(before)
            threads = thread_seconds(program.pid)
            peak = peak_mb(program.pid)
            first, last = await stage.times(self.places)
        await check.exactly(stage, self.places, events)
        done = Drained(
            contender=self._contender.name,
            what=self.what,
            events=events,
            from_start=events / (last - began),
            from_first=events / max(last - first, 1e-6),
            cpu_us={name: used * 1e6 / events for name, used in span.used.items()},
            peak_mb=peak,
            others_share=span.others,
            threads_us={name: used * 1e6 / events for name, used in threads.items()},
        )
        print(
            f"  {done.contender}, {done.what}: {done.from_start:,.0f} events/s from the start, {done.from_first:,.0f} "
            "from the first message on",
            flush=True,
        )
        return done

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Running | None"]:
        """Run it: yields `Running`, or None where not all watchers are RUNNING in time."""
        async with self._contender.start(self._stage, self.places) as program:
            in_time = await self._all_run(program)
            seconds = time.perf_counter() - program.began
            yield Running(self, self._stage, self._contender, program, seconds) if in_time else None

    async def remove(self) -> None:
        """Remove collections, streams, and what was stored beside them."""
        await self._stage.clear(self.places)
        await asyncio.to_thread(self._stage.client.drop_database, TOKENS)


@dataclass(frozen=True, slots=True)
class Running:
    """A fleet whose watchers are all RUNNING, which they were `seconds` after the start of the process."""

    fleet: Fleet
    stage: Stage
    contender: Contender
    program: Program
    seconds: float

    async def idle(self, seconds: float) -> Idle:
        """Write nothing."""
        await asyncio.sleep(min(SETTLE_SECONDS, 2 * seconds))
        size, before = await self._oplog(), self.stage.moment(self.program.pid)
        await asyncio.sleep(seconds)
        span = self.stage.moment(self.program.pid).since(before)
        told = (
            await self.contender.answer(self.program, "/watchers") if isinstance(self.contender, Changewire) else None
        )
        return Idle(
            contender=self.contender.name,
            what=self.fleet.what,
            seconds=seconds,
            cpu={name: used / span.seconds for name, used in span.used.items()},
            oplog_bytes_per_second=grown(size, await self._oplog(), span.seconds),
            rss_mb=rss_mb(self.program.pid),
            others_share=span.others,
            reads=dict(Counter(said for each in told or () if (said := _reads(each["status"])))),
        )

    async def steady(self, rate: int, seconds: float, *, what: str = "", places: Sequence[Place] = ()) -> Steady:
        """Write so many changes a second to the collections at random, or to those of these places."""
        begun: list[Any] = []
        size, count = await self._oplog(), int(rate * seconds)

        def begin() -> None:
            begun.append(self.stage.moment(self.program.pid))

        written = await ends.measure(
            self.stage, places or self.fleet.places, count, rate, into=places or self.fleet.sources, begun=begin
        )
        span: Span = self.stage.moment(self.program.pid).since(begun[0])
        done = Steady(
            contender=self.contender.name,
            what=what or self.fleet.what,
            rate=rate,
            events=count,
            percentiles=ends.percentiles(written.latencies),
            cpu_us={name: used * 1e6 / count for name, used in span.used.items()},
            oplog_bytes=grown(size, await self._oplog(), count + WARM),
            rss_mb=rss_mb(self.program.pid),
            others_share=span.others,
        )
        print(f"  {done.contender}, {done.what} at {rate}/s: p99 {done.percentiles['p99']:.1f} ms", flush=True)
        return done

    async def _oplog(self) -> int:
        answer = await asyncio.to_thread(self.stage.client.local.command, "collStats", "oplog.rs")
        return int(answer["size"])


def _reads(status: Mapping[str, Any]) -> str:
    """Nothing where this version does not say it."""
    reads, why = status.get("reads"), status.get("reads_reason") or status.get("reads_why")
    return f"{reads} ({why})" if why else reads or ""


def grown(before: int, after: int, parts: float) -> float | None:
    """What the oplog grew by, for each of the parts; None where mongod has cut its oldest end off meanwhile."""
    return (after - before) / parts if after >= before else None


@asynccontextmanager
async def made(
    stage: Stage, contender: Contender, number: int, *, patience: float, scope: bool = False
) -> AsyncIterator[Fleet]:
    """A fleet with its collections, removed at the end of the block."""
    fleet = Fleet(stage, contender, number, scope=scope, patience=patience)
    await fleet.create()
    try:
        yield fleet
    finally:
        await fleet.remove()
