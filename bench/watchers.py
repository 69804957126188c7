"""Many watchers at once: what they cost while nothing happens, and how long an event waits on one that was idle."""

import asyncio
from typing import Any

from bench import ends
from bench.contenders import Changewire
from bench.procfs import rss_mb
from bench.report import Result, Target
from bench.stage import Stage

RATE = 20
SETTLE_SECONDS = 5
"""Watchers that see nothing ask less and less often; that long it takes."""
TARGET_WATCHERS, IDLE_CPU, P99_MS = 50, 0.05, 50


async def measure(stage: Stage, *, numbers: list[int], events: int, seconds: float) -> Result:
    """Let so many watchers idle for `seconds`, then spread events over them at random; for each of the `numbers`.

    Raises Incomplete where an event does not arrive exactly once."""
    idle_of = ("idle CPU, service", "idle CPU, mongod", "idle CPU, nats-server")
    head = ["watchers", *idle_of, "service MB", "events", *ends.PERCENTILES]
    result = Result(
        "watchers", f"Watchers at once: idle for {seconds:g} s, then {RATE} inserts/s over them; latency in ms", [head]
    )
    runs: list[dict[str, Any]] = []
    for number in numbers:
        runs.append(run := await _run(stage, number, events, seconds))
        latencies = run.pop("latencies")
        idle = [f"{run['idle_cpu'][name]:.1%}" for name in ("service", "mongod", "nats")]
        result.table.append([f"{number:,}", *idle, f"{run['rss_mb']:.0f}", f"{events:,}", *ends.row(latencies)])
        print(f"  {number} watchers: service idle {idle[0]}, p99 {run['p99']:.1f} ms", flush=True)
        if number == TARGET_WATCHERS:
            cpu, p99 = run["idle_cpu"]["service"], run["p99"]
            result.targets += [
                Target(f"{number} idle watchers, CPU", f"{cpu:.1%} of a core", f"≤ {IDLE_CPU:.0%}", cpu <= IDLE_CPU),
                Target(f"{number} watchers, an event's p99", f"{p99:.1f} ms", f"≤ {P99_MS} ms", p99 <= P99_MS),
            ]
    result.remarks = ["Idle CPU is in parts of one core, with all watchers running and nothing written."]
    result.data = {"runs": runs}
    return result


async def _run(stage: Stage, number: int, events: int, seconds: float) -> dict[str, Any]:
    contender, places = Changewire(), stage.spread("many", number)
    await contender.prepare(stage, places)
    async with contender.start(stage, places) as program:
        await contender.running(stage, places, program)
        await asyncio.sleep(SETTLE_SECONDS)
        before = stage.moment(program.pid)
        await asyncio.sleep(seconds)
        idle = stage.moment(program.pid).since(before)
        written = await ends.measure(stage, places, events, RATE)
        memory = rss_mb(program.pid)
    await stage.clear(places)
    return {
        "watchers": number,
        "idle_cpu": {name: used / idle.seconds for name, used in idle.used.items()},
        "rss_mb": memory,
        "others_share": idle.others,
        **ends.percentiles(written.latencies),
        "latencies": written.latencies,
    }
