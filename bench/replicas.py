"""Three replicas: the headline's backlog, drained into streams of a cluster of three nats-servers on this machine.

All three share the processors, so a rate here says nothing about three machines. It compares modes and versions.
"""

from collections.abc import Sequence
from dataclasses import asdict

from bench.backlog import COLUMNS, cells, drain, interleaved, of, ratios, shares, ways
from bench.contenders import Contender
from bench.report import Result, spread
from bench.stage import Stage
from bench.workload import HEADLINE


async def measure(stage: Stage, contenders: Sequence[Contender], *, events: int, rounds: int) -> Result:
    """Start the cluster beside the stage's mongod, and run all rounds there.

    Raises Incomplete where a stream does not hold each event once."""
    async with stage.clustered() as cluster:
        done = [await drain(cluster, each, HEADLINE, events) for each in interleaved(contenders, rounds)]
    result = Result(
        "replicas",
        f"Three replicas: {HEADLINE.title}, drained; median (range) of {rounds}; CPU: µs per event",
        [[*COLUMNS, "events"]],
        data={"rounds": [asdict(each) for each in done]},
    )
    for contender in contenders:
        own = of(done, HEADLINE.name, contender.name)
        result.table.append([*cells(own), f"{own[0].events:,}"])
        if how := ways(own):
            result.remarks.append(f"{contender.name} publishes by the mode {how}.")
    for contender in contenders:
        each = ratios(done, HEADLINE.name, contender.name)
        if each and contender.name != "changewire":
            result.data.setdefault("ratios", {})[contender.name] = each
            result.remarks.append(f"changewire against {contender.name}, round by round: {spread(each, '.2f')} ×")
    result.remarks += [
        "nats-server's processor time is that of all three. Each stream held each event once.",
        shares(done),
    ]
    return result
