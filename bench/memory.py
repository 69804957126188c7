"""Memory: resident with one watcher after a drain, and while NATS is away and events wait."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

from bench import check, workload
from bench.contenders import Changewire
from bench.procfs import peak_mb, rss_mb
from bench.report import Result, Target
from bench.stage import Stage
from bench.workload import HEADLINE

SAMPLE_SECONDS = 0.2
SILENT_SECONDS = 60
LIMIT_MB = 70
FLAT_MB = 5
"""What a process that holds nothing back may grow by all the same."""
WAIT_SECONDS = 3
"""How long NATS stays away after the last write."""


@contextlib.asynccontextmanager
async def sampled(pid: int) -> AsyncIterator[list[float]]:
    """Resident memory in MiB, from the beginning of the block to its end."""
    samples = [rss_mb(pid)]

    async def sample() -> None:
        while True:
            await asyncio.sleep(SAMPLE_SECONDS)
            samples.append(rss_mb(pid))

    task = asyncio.create_task(sample(), name="rss")
    try:
        yield samples
    finally:
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()
    samples.append(rss_mb(pid))


async def measure(stage: Stage, *, events: int, waiting: int) -> Result:
    """Drain `events`, stop NATS, write `waiting` more, start NATS. Raises Incomplete unless all arrive once."""
    contender, place = Changewire(), stage.place("memory")
    await contender.prepare(stage, [place])
    async with contender.start(stage, [place]) as program:
        await contender.running(stage, [place], program)
        idle = rss_mb(program.pid)
        await asyncio.to_thread(workload.write, HEADLINE, [stage.collection(place)], range(events))
        await stage.until([place], events, SILENT_SECONDS)
        await asyncio.sleep(1)
        drained, drained_peak = rss_mb(program.pid), peak_mb(program.pid)
        print(f"  {drained:.0f} MB after the drain; NATS stops", flush=True)

        await stage.nats.stop()
        async with sampled(program.pid) as away:
            await asyncio.to_thread(
                workload.write, HEADLINE, [stage.collection(place)], range(events, events + waiting)
            )
            await asyncio.sleep(WAIT_SECONDS)
        await stage.nats.start()
        began = time.perf_counter()
        while not stage.bus.is_connected:
            await asyncio.sleep(0.05)
        async with sampled(program.pid) as back:
            await stage.until([place], events + waiting, SILENT_SECONDS)
        seconds = time.perf_counter() - began
        await check.exactly(stage, [place], events + waiting)
    await stage.clear([place])
    most = max(drained_peak, max(away), max(back))
    growth = max(away) - away[0]
    result = Result(
        "memory",
        "Resident memory of the service with one watcher",
        [
            ["", "MB", "most, MB"],
            ["idle, watching", f"{idle:.0f}", ""],
            [f"after {events:,} events", f"{drained:.0f}", f"{drained_peak:.0f}"],
            [f"NATS stopped, {waiting:,} events written", f"{away[0]:.0f} → {away[-1]:.0f}", f"{max(away):.0f}"],
            [f"NATS back, until all had arrived ({seconds:.0f} s)", f"{back[-1]:.0f}", f"{max(back):.0f}"],
        ],
        [f"The stream held each of {events + waiting:,} events once. Sampled every {SAMPLE_SECONDS} s; MB are MiB."],
        data={"idle": idle, "drained": drained, "drained_peak": drained_peak, "away": away, "back": back},
    )
    result.targets = [
        Target("memory, one watcher, draining", f"{most:.0f} MB", f"≤ {LIMIT_MB} MB", most <= LIMIT_MB),
        Target("memory growth while NATS is away", f"{growth:+.1f} MB", f"flat (≤ {FLAT_MB} MB)", growth <= FLAT_MB),
    ]
    return result
