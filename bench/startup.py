"""Start-up: from the process's start to the first event on the stream, with one event waiting."""

import asyncio

from bench import workload
from bench.contenders import Contender
from bench.report import Result, Target, median_of, spread
from bench.stage import Stage
from bench.workload import HEADLINE

MOST_SECONDS = 0.4


async def measure(stage: Stage, contenders: list[Contender], *, rounds: int) -> Result:
    """Start each contender so many times, interleaved."""
    seconds: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    for _ in range(rounds):
        for contender in contenders:
            seconds[contender.name].append(await _round(stage, contender))
    result = Result("startup", "Process start to first published event", [["", "seconds"]], data={"seconds": seconds})
    result.table += [[name, spread(each, ".2f")] for name, each in seconds.items()]
    result.remarks = [f"Median (range) of {rounds}, one event waiting, byte code compiled."]
    result.data["median"] = {name: median_of(each) for name, each in seconds.items()}
    ours = result.data["median"].get("changewire")
    if ours is not None:
        what = "process start to first event"
        result.targets.append(Target(what, f"{ours:.2f} s", f"≤ {MOST_SECONDS} s", ours <= MOST_SECONDS))
    return result


async def _round(stage: Stage, contender: Contender) -> float:
    place = stage.place(f"start_{contender.name}")
    await contender.prepare(stage, [place])
    await asyncio.to_thread(workload.write, HEADLINE, [stage.collection(place)], range(1))
    arrived = await stage.first(place)
    async with contender.start(stage, [place]) as program:
        seconds = await asyncio.wait_for(arrived, 30) - program.began
    await stage.clear([place])
    return seconds
