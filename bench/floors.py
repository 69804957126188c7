"""The floors: reading alone, encoding alone, publishing alone, on the servers that the drains run on (`floor.py`).

A drain does all three at once. It cannot be faster than the slowest of them, nor than the processors allow that all
three take together.
"""

import asyncio
import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from bench import check, workload
from bench.contenders import SERVICE_PYTHON, Changewire
from bench.floor import Asked
from bench.procfs import cores
from bench.report import Result, median_of, spread
from bench.stage import Incomplete, Stage
from bench.workload import Workload

PROCESSES = ("service", "mongod", "nats")
ALL_BUSY = "all processors busy"
STEPS = ("reading", "encoding", "publishing")
"""What an event goes through; of the encoders the first that was measured is the one in use."""


async def measure(stage: Stage, loads: Sequence[Workload], *, events: int, rounds: int) -> Result:
    """Measure each floor with each size of documents. Raises Incomplete where a step fails, or an event lacks."""
    result = Result(
        "floors",
        f"Floors: each step alone, inserts; median (range) of {rounds}; CPU: µs per event",
        [["document", "step", "events/s", "service", "mongod", "nats-server"]],
    )
    found: dict[str, dict[str, Any]] = {}
    for load in loads:
        runs = [await _round(stage, load, load.share(events)) for _ in range(rounds)]
        found[load.name] = {"mode": runs[0]["mode"], "floors": (floors := _medians([run["floors"] for run in runs]))}
        for step, floor in floors.items():
            used = [f"{floor['cpu_us'][name]:.1f}" if floor["cpu_us"][name] >= 0.05 else "" for name in PROCESSES]
            result.table.append([f"{load.size:,} bytes", step, spread(floor["rates"]), *used])
        result.table.append([f"{load.size:,} bytes", ALL_BUSY, f"{processors_limit(floors):,.0f}", "", "", ""])
        result.remarks.append(f"{load.size:,} bytes: published by the mode {runs[0]['mode']}.")
    result.remarks.append(
        "The service's own parts, in a process that does nothing else; counted from the first fifth on. With "
        f"“{ALL_BUSY}”: the rate at which the processor time of the three steps takes all {cores()} processors."
    )
    result.data["floors"] = found
    return result


async def _round(stage: Stage, load: Workload, events: int) -> dict[str, Any]:
    place = stage.place("floor")
    collection = stage.collection(place)
    await asyncio.to_thread(stage.client[place.database].create_collection, place.collection)
    # A cluster time has whole seconds, and the collection is new.
    at = (await asyncio.to_thread(stage.client.admin.command, "hello"))["operationTime"].time
    await asyncio.to_thread(workload.write, load, [collection], range(events))
    await stage.settle()
    asked = Asked(place.database, place.collection, place.stream, stage.replicas, at, events, stage.pids)
    told = await _run(stage, asked)
    await check.exactly(stage, [place], events)
    await stage.clear([place])
    rates = ", ".join(f"{step} {floor['events_per_second']:,.0f}" for step, floor in told["floors"].items())
    print(f"  {load.name}: {rates}", flush=True)
    return told


async def _run(stage: Stage, asked: Asked) -> dict[str, Any]:
    # One arena for all threads, as the service has it.
    environment = Changewire().environment(stage, asked.database) | {"MALLOC_ARENA_MAX": "1"}
    process = await asyncio.create_subprocess_exec(
        *(SERVICE_PYTHON, "-P", "-m", "bench.floor", json.dumps(asdict(asked))),
        env=environment, cwd=stage.directory,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        told, said = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise Incomplete("a floor was not measured\n" + "\n".join(said.decode(errors="replace").splitlines()[-15:]))
    result: dict[str, Any] = json.loads(told)
    return result


def _medians(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Each floor over its rounds: all rates, their median, and the medians of the processor times."""
    return {
        step: {
            "rates": (rates := [run[step]["events_per_second"] for run in runs]),
            "events_per_second": median_of(rates),
            "cpu_us": {name: median_of(run[step]["cpu_us"][name] for run in runs) for name in PROCESSES},
        }
        for step in runs[0]
    }


def in_use(floors: Mapping[str, Any]) -> dict[str, Any]:
    """The three steps that a drain goes through, by STEPS: of several encoders the first."""
    return {step: next(floor for name, floor in floors.items() if name.startswith(step)) for step in STEPS}


def processors_limit(floors: Mapping[str, Any]) -> float:
    """Events a second at which the processor time that the steps take fills all processors."""
    return cores() * 1e6 / sum(sum(floor["cpu_us"].values()) for floor in in_use(floors).values())
