"""Start-up: from the process's start to the first event on the stream, with one event waiting."""

import asyncio
import time

from bench import workload
from bench.contenders import Contender
from bench.report import Result, median_of, spread
from bench.stage import Stage


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
    return result


async def _round(stage: Stage, contender: Contender) -> float:
    place = stage.place(f"start_{contender.name}")
    await contender.prepare(stage, [place])
    await asyncio.to_thread(workload.write, stage.collection(place), range(1))
    arrived: asyncio.Future[float] = asyncio.get_running_loop().create_future()
    await stage.follow(place, lambda _: None if arrived.done() else arrived.set_result(time.perf_counter()))
    async with contender.start(stage, [place]) as program:
        seconds = await asyncio.wait_for(arrived, 30) - program.began
    await stage.clear(place)
    return seconds
