"""The headline: a backlog of inserts, drained by everybody.

Who needs a millisecond for each event drains fewer of them; a rate does not depend on how many there are.
"""

from dataclasses import asdict

from bench.backlog import COLUMNS, Round, cells, drain, interleaved, ratios, shares
from bench.contenders import Contender
from bench.report import Result, Target, median_of, spread
from bench.stage import Stage
from bench.workload import HEADLINE

AGAINST_MQ_BRIDGE, AGAINST_LIMIT, PYTHON_AGAINST_LIMIT = 1.5, 0.85, 0.6


async def measure(stage: Stage, contenders: list[Contender], *, events: dict[str, int], rounds: int) -> Result:
    """Run all rounds; `events` by contender. Raises Incomplete where a stream does not hold each event once."""
    done = [
        await drain(stage, contender, HEADLINE, events[contender.name]) for contender in interleaved(contenders, rounds)
    ]
    return _result(contenders, done, rounds)


def _result(contenders: list[Contender], done: list[Round], rounds: int) -> Result:
    result = Result(
        "drain",
        f"Backlog drain: {HEADLINE.title}; median (range) of {rounds}; CPU: µs per event",
        [[*COLUMNS, "events", "start to last, s"]],
        data={"rounds": [asdict(each) for each in done]},
    )
    for contender in contenders:
        own = [each for each in done if each.contender == contender.name]
        waits = spread([each.to_last_seconds for each in own], ".1f")
        result.table.append([*cells(own), f"{own[0].events:,}", waits])
        result.remarks.append(f"{contender.name} publishes {contender.what}.")
    result.remarks += [
        "Each stream held each event once. The rate is by the server's times of the first and the last message.",
        shares(done),
    ]
    compared = (
        ("changewire", "mq-bridge", AGAINST_MQ_BRIDGE),
        ("changewire", "limit", AGAINST_LIMIT),
        ("changewire-python", "limit", PYTHON_AGAINST_LIMIT),
        *(("changewire", each.name, None) for each in contenders if each.name not in _COMPARED),
    )
    for ours, other, least in compared:
        if each := ratios(done, HEADLINE.name, other, ours):
            result.data.setdefault("ratios", {})[f"{ours} to {other}"] = each
            result.remarks.append(f"{ours} against {other}, round by round: {spread(each, '.2f')} ×")
            if least is not None:
                figure = median_of(each)
                result.targets.append(
                    Target(f"drain, {ours} against {other}", f"{figure:.2f} ×", f"≥ {least} ×", figure >= least)
                )
    return result


_COMPARED = {"changewire", "changewire-python", "limit", "mq-bridge"}
