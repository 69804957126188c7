"""Other backlogs than plain inserts into one collection: updates, transactions, many collections."""

from collections.abc import Sequence
from dataclasses import asdict

from bench.backlog import COLUMNS, Round, cells, drain, interleaved, ratios, shares
from bench.contenders import Contender
from bench.report import Result, spread
from bench.stage import Stage
from bench.workload import Workload


async def measure(
    stage: Stage, contenders: list[Contender], loads: Sequence[Workload], *, events: int, rounds: int
) -> Result:
    """Drain each workload with each contender that can. Raises Incomplete if a stream does not hold each event once."""
    done: list[Round] = []
    result = Result(
        "workloads",
        f"Other workloads, drained; median (range) of {rounds}; CPU: µs per event",
        [["workload", "events", *COLUMNS[1:]]],
    )
    result.table[0].insert(2, "contender")
    for load in loads:
        able = [each for each in contenders if each.only is None or (load.collections == 1 and load.kind != "update")]
        count = load.share(events)
        done += [await drain(stage, contender, load, count) for contender in interleaved(able, rounds)]
        for contender in able:
            own = [each for each in done if (each.workload, each.contender) == (load.name, contender.name)]
            result.table.append([load.title, f"{count:,}", *cells(own)])
        for contender in able[1:]:
            each = ratios(done, load.name, contender.name)
            result.data.setdefault("ratios", {})[f"{load.name}, {contender.name}"] = each
            result.remarks.append(f"{load.title}: changewire against {contender.name} {spread(each, '.2f')} ×")
    for contender in contenders:
        if contender.only is not None:
            result.remarks.append(f"{contender.name} {contender.only}, so it is not in every workload.")
    result.remarks += ["Each stream held each event exactly once.", shares(done)]
    result.data |= {"rounds": [asdict(each) for each in done], "titles": {each.name: each.title for each in loads}}
    return result
