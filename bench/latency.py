"""Latency: from an insert's acknowledgement to the arrival of its message at a subscriber of the stream."""

import asyncio
import itertools

from bench import arrivals, workload
from bench.arrivals import Arrivals
from bench.contenders import Contender
from bench.procfs import cores
from bench.report import Result, Target
from bench.stage import Stage

TARGET_RATE = 100
P50_MS, P99_MS = 2, 10
WARM_UP = 100


async def measure(stage: Stage, contenders: list[Contender], *, rates: list[int], seconds: int) -> Result:
    """Measure each contender at each rate. Raises Incomplete where an event does not arrive exactly once."""
    head = ["ms", "inserts/s", "p50", "p95", "p99", "max", "service CPU", "harness CPU"]
    result = Result("latency", "Latency from an acknowledged insert to a JetStream subscriber", [head])
    floor = await arrivals.floor(stage, 200, TARGET_RATE)
    result.table.append(["(publish to arrival, no service)", str(TARGET_RATE), *arrivals.row(floor), "", ""])
    result.data["floor"] = arrivals.percentiles(floor)
    for contender in contenders:
        place = stage.place(contender.name)
        await contender.prepare(stage, [place])
        async with contender.start(stage, [place]) as program:
            await contender.running(stage, [place], program)
            choose = itertools.repeat(stage.collection(place)).__next__
            for rate in rates:
                await arrivals.write_steadily(choose, WARM_UP, rate)
                await asyncio.sleep(1)
                following = Arrivals()
                await following.follow(stage, [place])
                before = stage.moment(program.pid)
                acknowledged = await arrivals.write_steadily(choose, rate * seconds, rate)
                span = stage.moment(program.pid).since(before)
                latencies = await following.latencies(acknowledged)
                figures = arrivals.percentiles(latencies)
                shares = [span.used[name] / span.seconds for name in ("service", "bench")]
                result.table.append(
                    [contender.name, str(rate), *arrivals.row(latencies), *(f"{share:.0%}" for share in shares)]
                )
                result.data[f"{contender.name} at {rate}/s"] = {
                    **figures, "count": len(latencies), "service_cpu": shares[0], "others_share": span.others,
                }  # fmt: skip
                if contender.name == "changewire" and rate == TARGET_RATE:
                    for name, limit in (("p50", P50_MS), ("p99", P99_MS)):
                        figure, met = f"{figures[name]:.1f} ms", figures[name] <= limit
                        result.targets.append(Target(f"latency at {rate}/s, {name}", figure, f"≤ {limit} ms", met))
        await stage.clear(place)
    result.remarks = [
        f"{seconds} s at each rate, documents of {workload.BYTES:,} bytes.",
        "mongod acknowledges once a majority has the insert, which is when a change stream may show it.",
        f"CPU in parts of one of {cores()} cores; the harness writes and subscribes in one process, and shares them.",
    ]
    return result
