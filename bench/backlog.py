"""One backlog, drained once: so many changes wait, then the process starts. How fast is it, and what does it cost?

Rate and processor time are those from the first fifth of the messages on, by the times at which the server stored them.
By then every contender is up to speed; Changewire imports its HTTP interface beside the first ones. What it takes from
the start of the process to the last message stands beside it. Nobody reads so far ahead that it would count.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from bench import check, workload
from bench.contenders import Contender
from bench.procfs import peak_mb
from bench.report import median_of, spread
from bench.stage import POLL_SECONDS, Stage
from bench.workload import Workload

SILENT_SECONDS = 30
RUN_UP = 0.2
"""The share of the messages that is not counted."""
COLUMNS = ["", "events/s", "service", "mongod", "nats-server", "peak MB", "bytes/message"]
"""What `cells` shows of a contender."""


@dataclass(frozen=True, slots=True)
class Round:
    """One drain. `cpu_us` is processor time per event in microseconds, by process."""

    workload: str
    contender: str
    events: int
    events_per_second: float
    to_last_seconds: float
    cpu_us: dict[str, float]
    peak_mb: float
    bytes_per_message: int
    others_share: float


async def drain(stage: Stage, contender: Contender, load: Workload, events: int) -> Round:
    """One round. Raises Incomplete where the streams do not end up with each change once."""
    places = stage.spread(contender.name, load.collections)
    collections = [stage.collection(place) for place in places]
    await asyncio.to_thread(workload.write_before, load, collections)
    await contender.prepare(stage, places)
    await asyncio.to_thread(workload.write, load, collections, range(events))
    await stage.settle()
    async with contender.start(stage, places) as program:
        while (counted := await stage.count(places)) < max(1, events * RUN_UP):
            program.check()
            await asyncio.sleep(POLL_SECONDS / 5)
        before = stage.moment(program.pid)
        await stage.until(places, events, SILENT_SECONDS)
        span = stage.moment(program.pid).since(before)
        to_last = before.at + span.seconds - program.began
        peak = peak_mb(program.pid)
        size = await check.exactly(stage, places, events)
        measured, seconds = await stage.stretch(places, RUN_UP)
    await stage.clear(places)
    done = Round(
        workload=load.name,
        contender=contender.name,
        events=events,
        events_per_second=measured / max(seconds, 1e-6),  # so few that all came in one batch
        to_last_seconds=to_last,
        cpu_us={name: seconds * 1e6 / max(1, events - counted) for name, seconds in span.used.items()},
        peak_mb=peak,
        bytes_per_message=size // events,
        others_share=span.others,
    )
    print(f"  {load.name}, {contender.name}: {done.events_per_second:,.0f} events/s", flush=True)
    return done


def interleaved(contenders: Sequence[Contender], rounds: int) -> list[Contender]:
    """Everybody's turns: their order alternates, so that what else the machine does hits all alike."""
    return [each for number in range(rounds) for each in (contenders if number % 2 == 0 else contenders[::-1])]


def cells(rounds: Sequence[Round]) -> list[str]:
    """One contender's rounds of one workload as a row of COLUMNS: medians, and the range of the rates."""
    return [
        rounds[0].contender,
        spread([each.events_per_second for each in rounds]),
        *(f"{median_of(each.cpu_us[name] for each in rounds):.1f}" for name in ("service", "mongod", "nats")),
        f"{max(each.peak_mb for each in rounds):.0f}",
        f"{rounds[0].bytes_per_message:,}",
    ]


def ratios(rounds: Sequence[Round], load: str, other: str, ours: str = "changewire") -> list[float]:
    """How many times as fast as another one of us was, round by round; none where one of them is missing."""
    mine, others = (
        [each.events_per_second for each in rounds if (each.workload, each.contender) == (load, name)]
        for name in (ours, other)
    )
    return [one / another for one, another in zip(mine, others, strict=False)]


def shares(rounds: Sequence[Round]) -> str:
    """What else the machine did, in the order measured."""
    return "In the order measured, with the share of the processors that other programs took meanwhile: " + ", ".join(
        f"{each.contender} {each.events_per_second:,.0f} ({each.others_share:.0%})" for each in rounds
    )
