"""The headline: backlogs of inserts, small, usual and large, drained by everybody.

A program that needs a millisecond for each event drains fewer of them; a rate does not depend on how many there are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from bench.backlog import COLUMNS, START_SECONDS, Round, cells, drain, interleaved, of, ratios, shares, ways
from bench.contenders import Contender
from bench.report import Result, Target, median_of, spread
from bench.stage import Stage
from bench.workload import BYTES, HEADLINE, LARGE, SMALL, Workload

AGAINST_MQ_BRIDGE = {SMALL.name: 1.5, HEADLINE.name: 1.8, LARGE.name: 1.5}
"""How many times as fast as mq-bridge Changewire is to be."""
CPU_US = {"service": 9.0, "mongod": 9.0, "nats": 11.0}
"""Processor time per event of the headline, in microseconds, by process."""
PROCESSES = {"service": "service", "mongod": "mongod", "nats": "nats-server"}
OURS = "changewire"


async def measure(
    stage: Stage,
    contenders: Mapping[str, Sequence[Contender]],
    loads: Sequence[Workload],
    *,
    events: Mapping[str, int],
    rounds: int,
) -> Result:
    """Run all rounds; `contenders` by workload, `events` of the headline by contender.

    Raises Incomplete where a stream does not hold each event once."""
    done = [
        await drain(stage, contender, load, load.share(events[contender.name]))
        for load in loads
        for contender in interleaved(contenders[load.name], rounds)
    ]
    return _result(contenders, loads, done, rounds)


def _result(
    contenders: Mapping[str, Sequence[Contender]], loads: Sequence[Workload], done: list[Round], rounds: int
) -> Result:
    result = Result(
        "drain",
        f"Backlog drain: inserts; median (range) of {rounds}; CPU: µs per event",
        [["document", *COLUMNS, "events", "start to last, s"]],
        data={"rounds": [asdict(each) for each in done]},
    )
    for load in loads:
        for contender in contenders[load.name]:
            own = of(done, load.name, contender.name)
            waits = spread([each.to_last_seconds for each in own], ".1f")
            result.table.append([f"{load.size:,} bytes", *cells(own), f"{own[0].events:,}", waits])
    for name, contender in {each.name: each for load in loads for each in contenders[load.name]}.items():
        how = ways([each for each in done if each.contender == name])
        result.remarks.append(f"{name} publishes {contender.what}{f' (publish mode: {how})' if how else ''}.")
    result.remarks.append(
        "Each stream held each event once. Rates are by the server's times, from the first fifth on, once the "
        f"program has started ({START_SECONDS:g} s old, HTTP answers); from the half on at the latest."
    )
    for load in loads:
        for contender in contenders[load.name]:
            _compare(result, done, load, contender.name)
    result.targets += [
        Target(
            f"processor time at {BYTES:,} bytes, {PROCESSES[name]}", f"{used:.1f} µs", f"≤ {most:g} µs", used <= most
        )
        for name, used, most in _cpu(done)
    ]
    result.remarks.append(shares(done))
    return result


def _compare(result: Result, done: Sequence[Round], load: Workload, other: str) -> None:
    """Add how many times as fast as another program ours was."""
    if other == OURS or not (each := ratios(done, load.name, other)):
        return
    result.data.setdefault("ratios", {})[f"{load.name}, {OURS} to {other}"] = each
    result.remarks.append(f"{load.size:,} bytes: {OURS} against {other}, round by round: {spread(each, '.2f')} ×")
    if other == "mq-bridge" and (least := AGAINST_MQ_BRIDGE.get(load.name)) is not None:
        figure = median_of(each)
        what = f"drain at {load.size:,} bytes, {OURS} against {other}"
        result.targets.append(Target(what, f"{figure:.2f} ×", f"≥ {least:g} ×", figure >= least))


def _cpu(done: Sequence[Round]) -> list[tuple[str, float, float]]:
    own = of(done, HEADLINE.name, OURS)
    return [(name, median_of(each.cpu_us[name] for each in own), most) for name, most in CPU_US.items() if own]
