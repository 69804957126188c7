"""Backlog drain: so many inserts wait, then the process starts. How fast is it, once it runs, and what does it cost?

Rounds are interleaved, and their order alternates, so that what else the machine does hits all alike. The rate is taken
from the times at which the server stored the first and the last message: the contender's own start is not in it
(`startup.py` measures that), its getting up to speed is. Beginning to count later would favour whoever reads ahead.
"""

import asyncio
from dataclasses import asdict, dataclass

from bench import workload
from bench.contenders import Contender
from bench.procfs import peak_mb
from bench.report import Result, Target, median_of, spread
from bench.stage import POLL_SECONDS, Stage

SILENT_SECONDS = 30
EVENTS_PER_SECOND = 15_000
AGAINST_PEER = 0.8


@dataclass(frozen=True, slots=True)
class Round:
    """One drain. `cpu_us` is processor time per event in microseconds, by process."""

    contender: str
    events_per_second: float
    to_last_seconds: float
    cpu_us: dict[str, float]
    peak_mb: float
    bytes_per_message: int
    others_share: float


async def measure(stage: Stage, contenders: list[Contender], *, events: int, rounds: int) -> Result:
    """Run all rounds. Raises Incomplete where a stream does not end up with exactly `events` messages."""
    done: list[Round] = []
    for number in range(rounds):
        for contender in contenders if number % 2 == 0 else reversed(contenders):
            done.append(await _round(stage, contender, events))
            print(f"  round {number + 1}, {contender.name}: {done[-1].events_per_second:,.0f} events/s", flush=True)
    return _result(contenders, done, events, rounds)


async def _round(stage: Stage, contender: Contender, events: int) -> Round:
    place = stage.place(contender.name)
    await contender.prepare(stage, [place])
    await asyncio.to_thread(workload.write, stage.collection(place), range(events))
    await stage.settle()
    async with contender.start(stage, [place]) as program:
        while not (counted := await stage.count(place)):
            program.check()
            await asyncio.sleep(POLL_SECONDS / 5)
        before = stage.moment(program.pid)
        await stage.until(place, events, SILENT_SECONDS)
        span = stage.moment(program.pid).since(before)
        to_last = before.at + span.seconds - program.began
        peak = peak_mb(program.pid)
        await stage.exactly(place, events)
        first, last = await stage.message(place, 1), await stage.message(place, -1)
    await stage.clear(place)
    return Round(
        contender=contender.name,
        events_per_second=(events - 1) / (last.at - first.at),
        to_last_seconds=to_last,
        cpu_us={name: seconds * 1e6 / max(1, events - counted) for name, seconds in span.used.items()},
        peak_mb=peak,
        bytes_per_message=len(last.body),
        others_share=span.others,
    )


def _result(contenders: list[Contender], done: list[Round], events: int, rounds: int) -> Result:
    columns = ["", "events/s", "service", "mongod", "nats-server", "peak MB", "bytes/message", "start to last, s"]
    result = Result(
        "drain",
        f"Backlog drain: {events:,} inserts of {workload.BYTES:,} bytes; median (range) of {rounds}; CPU: µs per event",
        [columns],
        data={"events": events, "rounds": [asdict(each) for each in done]},
    )
    rates: dict[str, list[float]] = {}
    for contender in contenders:
        own = [each for each in done if each.contender == contender.name]
        rates[contender.name] = [each.events_per_second for each in own]
        result.table.append(
            [
                contender.name,
                spread(rates[contender.name]),
                *(f"{median_of(each.cpu_us[name] for each in own):.1f}" for name in ("service", "mongod", "nats")),
                f"{max(each.peak_mb for each in own):.0f}",
                f"{own[0].bytes_per_message:,}",
                spread([each.to_last_seconds for each in own], ".1f"),
            ]
        )
        result.remarks.append(f"{contender.name} publishes {contender.what}.")
    result.remarks += [
        f"Each stream held exactly {events:,} messages. The rate is by the server's times of the first and the last.",
        "In the order measured, with the share of the processors that other programs took meanwhile: "
        + ", ".join(f"{each.contender} {each.events_per_second:,.0f} ({each.others_share:.0%})" for each in done),
    ]
    ours = rates["changewire"]
    rate = median_of(ours)
    result.targets.append(
        Target("drain, events/s", f"{rate:,.0f}", f"≥ {EVENTS_PER_SECOND:,}", rate >= EVENTS_PER_SECOND)
    )
    if "mq-bridge" in rates:
        ratios = [mine / peer for mine, peer in zip(ours, rates["mq-bridge"], strict=True)]
        result.data["ratio"] = {"by_round": ratios, "of_medians": rate / median_of(rates["mq-bridge"])}
        result.remarks.append(f"changewire against mq-bridge, round by round: {spread(ratios, '.2f')} ×")
        met = median_of(ratios) >= AGAINST_PEER
        result.targets.append(
            Target("drain, against mq-bridge", f"{median_of(ratios):.2f} ×", f"≥ {AGAINST_PEER} ×", met)
        )
    return result
