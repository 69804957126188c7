"""Where an event's processor time goes, and which floor binds: the drain beside its floors. Measures nothing itself."""

from collections.abc import Mapping, Sequence
from typing import Any

from bench.floors import ALL_BUSY, PROCESSES, in_use, processors_limit
from bench.report import Result, median_of
from bench.workload import SIZES

OURS = "changewire"


def compare(drain: Result, floors: Result) -> Result:
    """The table of all sizes that both sections have measured, and for each size the floor that binds."""
    result = Result(
        "costs",
        "Processor time per event and step, in µs",
        [["document", "", "service", "mongod", "nats-server", "together"]],
    )
    for load in SIZES:
        rounds = [each for each in drain.data["rounds"] if (each["workload"], each["contender"]) == (load.name, OURS)]
        found = floors.data["floors"].get(load.name)
        if not rounds or found is None:
            continue
        size = f"{load.size:,} bytes"
        steps = in_use(found["floors"])
        alone = [(f"{step} alone", floor["cpu_us"]) for step, floor in steps.items()]
        whole = {name: median_of(each["cpu_us"][name] for each in rounds) for name in PROCESSES}
        rest = {name: whole[name] - sum(floor["cpu_us"][name] for floor in steps.values()) for name in PROCESSES}
        for what, used in [*alone, ("the drain", whole), ("the drain beyond its steps", rest)]:
            cells = [f"{used[name]:.1f}" if abs(used[name]) >= 0.05 else "" for name in PROCESSES]
            result.table.append([size, what, *cells, f"{sum(used.values()):.1f}"])
        for name, used in _threads(rounds).items():
            result.table.append([size, f"of the drain, the service's {name}", f"{used:.1f}", "", "", f"{used:.1f}"])
        rate = median_of(each["events_per_second"] for each in rounds)
        binding, limit = binds(found["floors"])
        result.remarks.append(
            f"{size}: the drain's {rate:,.0f} events/s are {rate / limit:.0%} of the lowest floor, {binding} "
            f"({limit:,.0f})."
        )
        result.data[load.name] = {"binds": binding, "limit": limit, "rate": rate, "drain": whole, "beyond": rest}
    result.remarks.append(
        "Beyond its steps a drain has the queue between them, checkpoints, metrics, smaller pieces than alone, and "
        "processors that are shared."
    )
    return result


def binds(floors: Mapping[str, Any]) -> tuple[str, float]:
    """The lowest of the floors, and its events a second."""
    limits = {step: floor["events_per_second"] for step, floor in in_use(floors).items()}
    limits = {f"{step} alone": rate for step, rate in limits.items()} | {ALL_BUSY: processors_limit(floors)}
    lowest = min(limits, key=lambda name: limits[name])
    return lowest, limits[lowest]


def _threads(rounds: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The service's processor time by thread, in µs per event; the medians."""
    names = dict.fromkeys(name for each in rounds for name in each["threads_us"])
    return {name: median_of(each["threads_us"].get(name, 0.0) for each in rounds) for name in names}
