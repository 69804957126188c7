"""Many watchers at once: how long an event waits on one of them that was idle."""

import asyncio
import random

from bench import arrivals
from bench.arrivals import Arrivals
from bench.contenders import Changewire
from bench.procfs import rss_mb
from bench.report import Result, Target
from bench.stage import Place, Stage

RATE = 20
P99_MS = 100
IDLE_SECONDS = 5


async def measure(stage: Stage, *, watchers: int, events: int) -> Result:
    """Spread events at random over watchers. Raises Incomplete where one does not arrive exactly once."""
    contender, first = Changewire(), stage.place("many")
    places = [Place(first.database, f"orders_{each}", f"{first.stream}_{each}") for each in range(watchers)]
    await contender.prepare(stage, places)
    async with contender.start(stage, places) as program:
        await contender.running(stage, places, program)
        before = stage.moment(program.pid)
        await asyncio.sleep(IDLE_SECONDS)
        idle = stage.moment(program.pid).since(before)
        following = Arrivals()
        await following.follow(stage, places)
        dice = random.Random(2)
        collections = [stage.collection(place) for place in places]
        acknowledged = await arrivals.write_steadily(lambda: dice.choice(collections), events, RATE)
        latencies = await following.latencies(acknowledged)
        memory = rss_mb(program.pid)
    for place in places:
        await stage.ask(f"STREAM.DELETE.{place.stream}")
    await stage.clear(first)
    figures = arrivals.percentiles(latencies)
    shares = {name: idle.used[name] / idle.seconds for name in ("service", "mongod")}
    return Result(
        "watchers",
        f"{watchers} watchers at once: {events:,} events spread at random, {RATE}/s; latency in ms",
        [
            ["p50", "p95", "p99", "max", "idle CPU, service", "idle CPU, mongod", "service MB"],
            [*arrivals.row(latencies), *(f"{share:.0%}" for share in shares.values()), f"{memory:.0f}"],
        ],
        ["Idle CPU is in parts of one core, with all watchers running and nothing written."],
        [Target(f"{watchers} watchers, p99", f"{figures['p99']:.1f} ms", f"≤ {P99_MS} ms", figures["p99"] <= P99_MS)],
        {**figures, "idle_cpu": shares, "rss_mb": memory},
    )
