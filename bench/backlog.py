"""One backlog, drained once: so many changes wait, then the process starts. How fast is it, and what does it cost?

Rate and processor time are those from the first fifth of the messages on, by the times at which the server stored them;
where a program has not started by then, from that moment on, but from the second half on at the latest. Started is a
process that is 1.2 seconds old and, if it serves HTTP, answers: Changewire imports its HTTP interface beside the first
messages. What it takes from the start of the process to the last message stands beside it. Nobody reads so far ahead
that it would count.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from bench import check, workload
from bench.contenders import Contender
from bench.procfs import peak_mb, thread_seconds
from bench.program import Program
from bench.report import median_of, spread
from bench.stage import POLL_SECONDS, Place, Stage
from bench.workload import Workload

SILENT_SECONDS = 30
RUN_UP, AT_MOST = 0.2, 0.5
"""The share of the messages that is not counted, and the largest."""
START_SECONDS = 1.2
"""For so long a program may still be starting, in any case."""
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
    threads_us: dict[str, float] = field(default_factory=dict)
    """The same of the service alone, by thread."""
    way: str = ""
    """How it published, where it can be asked."""


async def drain(stage: Stage, contender: Contender, load: Workload, events: int) -> Round:
    """One round. Raises Incomplete where the streams do not end up with each change once."""
    places = stage.spread(contender.name, load.collections)
    collections = [stage.collection(place) for place in places]
    await asyncio.to_thread(workload.write_before, load, collections)
    await contender.prepare(stage, places)
    await asyncio.to_thread(workload.write, load, collections, range(events))
    await stage.settle()
    async with contender.start(stage, places) as program:
        counted = await _until_up_to_speed(stage, contender, places, program, events)
        before, threads = stage.moment(program.pid), thread_seconds(program.pid)
        await stage.until(places, events, SILENT_SECONDS)
        span, threads_then = stage.moment(program.pid).since(before), thread_seconds(program.pid)
        to_last = before.at + span.seconds - program.began
        peak = peak_mb(program.pid)
        way = await contender.way(places, program)
        size = await check.exactly(stage, places, events)
        # Few may have come all at once.
        measured, seconds = await stage.stretch(places, counted / events if counted < events else RUN_UP)
    await stage.clear(places)
    each = 1e6 / max(1, events - counted)
    done = Round(
        workload=load.name,
        contender=contender.name,
        events=events,
        events_per_second=measured / max(seconds, 1e-6),  # so few that all came in one batch
        to_last_seconds=to_last,
        cpu_us={name: seconds * each for name, seconds in span.used.items()},
        peak_mb=peak,
        bytes_per_message=size // events,
        others_share=span.others,
        threads_us={name: (used - threads.get(name, 0)) * each for name, used in threads_then.items()},
        way=way,
    )
    print(f"  {load.name}, {contender.name}: {done.events_per_second:,.0f} events/s", flush=True)
    return done


async def _until_up_to_speed(
    stage: Stage, contender: Contender, places: Sequence[Place], program: Program, events: int
) -> int:
    """Wait until counting may begin; return how many messages there are by then."""
    up = asyncio.create_task(contender.up(program), name="up")
    try:
        while True:
            counted = await stage.count(places)
            started = up.done() and time.perf_counter() - program.began >= START_SECONDS
            if up_to_speed(counted, events, started=started):
                return counted
            if up.done():
                up.result()
            program.check()
            await asyncio.sleep(POLL_SECONDS / 5)
    finally:
        up.cancel()
        await asyncio.wait([up])


def up_to_speed(count: int, events: int, *, started: bool) -> bool:
    """Whether counting may begin: after so many messages of `events`, by a program that has `started` or has not."""
    return count >= max(1, events * (RUN_UP if started else AT_MOST))


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


def of(rounds: Sequence[Round], load: str, contender: str) -> list[Round]:
    """One contender's rounds of one workload."""
    return [each for each in rounds if (each.workload, each.contender) == (load, contender)]


def ways(rounds: Sequence[Round]) -> str:
    """The publish modes that were used, as the contender says it."""
    return ", ".join(dict.fromkeys(each.way for each in rounds if each.way))


def ratios(rounds: Sequence[Round], load: str, other: str, ours: str = "changewire") -> list[float]:
    """How many times as fast as another one of us was, round by round; none where one of them is missing."""
    mine, others = ([each.events_per_second for each in of(rounds, load, name)] for name in (ours, other))
    return [one / another for one, another in zip(mine, others, strict=False)]


def shares(rounds: Sequence[Round]) -> str:
    """What else the machine did, in the order measured."""
    return "In the order measured, with the share of the processors that other programs took meanwhile: " + ", ".join(
        f"{each.contender} {each.events_per_second:,.0f} ({each.others_share:.0%})" for each in rounds
    )
