"""Measure on this machine, with a mongod and nats-servers of its own; Linux, half an hour (--quick: five minutes).

Prints Markdown tables and writes everything measured to a JSON file. Exit code 1 where a stream did not hold what it
had to, or something could not run; never for being slow.
"""

import argparse
import asyncio
import importlib.metadata
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from app.devservers.servers import NotAvailable, StartError
from app.formats import native
from bench import (
    costs,
    drain,
    fan_out,
    floors,
    instances,
    latency,
    memory,
    open_pages,
    procfs,
    replicas,
    report,
    snapshots,
    startup,
    watchers,
    workloads,
)
from bench.contenders import Changewire, Contender, InPython, Version
from bench.debezium import Debezium
from bench.others import MqBridge, Peer, baseline
from bench.report import Result
from bench.stage import Incomplete, Stage
from bench.workload import HEADLINE, SIZES, WORKLOADS

SECTIONS = (
    "drain",
    "floors",
    "workloads",
    "replicas",
    "latency",
    "memory",
    "watchers",
    "fan-out",
    "instances",
    "snapshot",
    "page",
    "startup",
)
OWN: tuple[type[Contender], ...] = (Changewire, InPython, MqBridge)
BASELINE = "one-by-one"
NAMES = (*(each.name for each in OWN), BASELINE)
QUICK_WORKLOADS = ("updates", "collections-10")
SLOWER = 15
"""Of this part of the events, peers and the baseline drain a backlog: some take a millisecond for each."""


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the arguments; what `--quick` makes smaller is only what was not given."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__, allow_abbrev=False)
    parser.add_argument("--quick", action="store_true", help="a short run: shows that it works, not how fast it is")
    parser.add_argument("--only", type=_of(SECTIONS), default=SECTIONS, metavar="A,B", help=f"of {', '.join(SECTIONS)}")
    parser.add_argument(
        "--contenders", type=_of(NAMES), default=NAMES, metavar="A,B", help=f"of {', '.join(NAMES)}; peers come besides"
    )
    loads, documents = tuple(each.name for each in WORKLOADS), tuple(each.name for each in SIZES)
    parser.add_argument(
        "--documents",
        type=_of(documents),
        default=documents,
        metavar="A,B",
        help="of "
        + ", ".join(f"{each.name} ({each.size:,} bytes)" for each in SIZES)
        + ": what drain and floors insert",
    )
    parser.add_argument(
        "--workloads",
        type=_of(loads),
        metavar="A,B",
        help=f"of {', '.join(loads)} (all; quick {','.join(QUICK_WORKLOADS)})",
    )
    parser.add_argument(
        "--tree", type=_named(Version), action="append", default=[], metavar="NAME=DIRECTORY",
        help="measure another version of Changewire as well, out of its own tree; may be given several times",
    )  # fmt: skip
    parser.add_argument(
        "--peer", type=_named(Peer), action="append", default=[], metavar="NAME=COMMAND",
        help="measure one more program: it reads MONGO_URI, NATS_URL and CONFIG_FILE (a connector.yaml), fills the "
        "stream named there, and goes on where it stopped; may be given several times",
    )  # fmt: skip
    parser.add_argument(
        "--debezium", type=_refusing(Debezium.at), metavar="DIRECTORY",
        help="measure the Debezium Server unpacked there in the fan-out as well, by the java of JAVA_HOME or the path",
    )  # fmt: skip
    parser.add_argument("--json", type=Path, default=Path("bench/results/latest.json"), help="default: %(default)s")
    parser.add_argument("--plots", type=Path, metavar="DIRECTORY", help="draw the figures there as well")
    sizes = {
        "events": ("waiting in the drain, of the usual documents", 150_000, 5_000),
        "rounds": ("of the drain", 3, 1),
        "floor-events": ("of the usual documents for the floors", 50_000, 5_000),
        "floor-rounds": ("of the floors", 3, 1),
        "replica-events": ("waiting in the drain with three replicas", 80_000, 4_000),
        "replica-rounds": ("of that drain", 3, 1),
        "peer-events": ("waiting for peers and the baseline", None, None),
        "workload-events": ("waiting in each of the other workloads", 50_000, 4_000),
        "workload-rounds": ("of them", 2, 1),
        "seconds": ("of each rate of the latency section", 20, 2),
        "waiting": ("events written while NATS is stopped", 200_000, 10_000),
        "spread": ("events over the watchers", 300, 40),
        "idle": ("seconds that watchers idle", 10, 2),
        "fan-out-events": ("waiting in each drain of the fan-out", 30_000, 3_000),
        "fan-out-rounds": ("of these drains; with the most watchers always one", 3, 1),
        "fan-out-seconds": ("of each rate and of idling there", 15, 2),
        "patience": ("seconds that a step of the fan-out, the instances and the snapshots may take", 120, 60),
        "instances-watchers": ("that the instances share", 60, 12),
        "instances-rounds": ("of stops, rolling restarts, costs and drains there", 2, 1),
        "instances-seconds": ("of each rate whose costs are measured there", 5, 1),
        "instances-events": ("waiting in each drain there", 30_000, 3_000),
        "kills": ("of instances", 20, 2),
        "snapshot-documents": ("of a snapshot, of the usual size", 500_000, 2_000),
        "snapshot-rounds": ("of drain and snapshot by turns", 3, 1),
        "snapshot-kills": ("of the process in the middle of a run", 5, 1),
        "snapshot-others": ("watchers beside that of the run, of one shared change stream", 50, 3),
        "page-watchers": ("that the page lists", 1_000, 40),
        "page-rounds": ("of none, one and four open pages", 5, 1),
        "page-seconds": ("that so many pages are open", 20, 2),
        "starts": ("of each program", 5, 1),
    }
    for name, (what, full, quick) in sizes.items():
        default = f"a {SLOWER}th of --events" if full is None or quick is None else f"{full:,}; quick {quick:,}"
        parser.add_argument(f"--{name}", type=_positive, metavar="N", help=f"{what} (default {default})")
    parser.add_argument("--rates", type=_numbers, metavar="R,R", help="inserts/s for latency (10,100,1000,5000)")
    parser.add_argument("--peer-rates", type=_numbers, default=[100], metavar="R,R", help="the same of others (100)")
    parser.add_argument("--watchers", type=_numbers, metavar="N,N", help="running at once (1,50,200; quick 1,50)")
    parser.add_argument("--fan-out", type=_numbers, metavar="N,N", help="watchers there (1,200,1000; quick 1,40)")
    parser.add_argument("--fan-out-rates", type=_numbers, metavar="R,R", help="inserts/s there (100,1000; quick 100)")
    arguments = parser.parse_args(argv)
    quick = arguments.quick
    for name, (_, full, small) in sizes.items():
        name = name.replace("-", "_")
        if getattr(arguments, name) is None:
            setattr(arguments, name, small if quick else full)
    arguments.peer_events = arguments.peer_events or max(2, arguments.events // SLOWER)
    arguments.workloads = arguments.workloads or (QUICK_WORKLOADS if quick else loads)
    arguments.rates = arguments.rates or ([100, 1000, 5000] if quick else [10, 100, 1000, 5000])
    arguments.watchers = arguments.watchers or ([1, 50] if quick else [1, 50, 200])
    arguments.fan_out = arguments.fan_out or ([1, 40] if quick else [1, 200, 1000])
    arguments.fan_out_rates = arguments.fan_out_rates or ([100] if quick else [100, 1000])
    if min(arguments.events, arguments.peer_events) < 2:
        parser.error("--events has to be 2 or more")
    return arguments


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value


def _numbers(text: str) -> list[int]:
    return [_positive(part) for part in text.split(",")]


def _of(names: tuple[str, ...]) -> Callable[[str], tuple[str, ...]]:
    def choose(text: str) -> tuple[str, ...]:
        chosen = {part for part in text.split(",") if part}
        if not chosen or not chosen <= set(names):
            raise argparse.ArgumentTypeError(f"choose of {', '.join(names)}")
        return tuple(name for name in names if name in chosen)

    return choose


def _named(kind: type[Peer] | type[Version]) -> Callable[[str], Contender]:
    return _refusing(kind.named)


def _refusing(make: Callable[[str], Contender]) -> Callable[[str], Contender]:
    def read(text: str) -> Contender:
        try:
            return make(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read


def contenders(arguments: argparse.Namespace) -> list[Contender]:
    """Those that are asked for and available, the other versions, and the peers."""
    chosen: list[Contender] = []
    for each in OWN:
        if each.name not in arguments.contenders:
            continue
        if each is InPython and native.absence() is not None:
            print("the native transcoder was not built: changewire encodes in Python", flush=True)
        elif each is MqBridge and not MqBridge.installed():
            print("mq-bridge is not installed (make setup)", flush=True)
        else:
            chosen.append(each())
    if BASELINE in arguments.contenders:
        chosen.append(baseline())
    return [*chosen, *arguments.tree, *arguments.peer]


async def run(arguments: argparse.Namespace) -> list[Result]:
    """Run the sections, print each as it ends, and write the file after each: an abandoned run keeps what it has."""
    results: list[Result] = []
    everyone = contenders(arguments)
    # Beside the usual documents: the contenders that add something. The others' latency differs only by the encoding.
    pipelines = [each for each in everyone if type(each) in (Changewire, Version, MqBridge)]
    programs = [each for each in everyone if type(each) is not InPython]
    replicated = [each for each in everyone if type(each) is not InPython and each.name != BASELINE]
    if arguments.quick:
        programs = [each for each in programs if each.name != BASELINE]
    documents = [each for each in SIZES if each.name in arguments.documents]
    loads = [each for each in WORKLOADS if each.name in arguments.workloads]
    events = {each.name: arguments.peer_events if isinstance(each, Peer) else arguments.events for each in everyone}
    drained = {each.name: everyone if each is HEADLINE else pipelines for each in documents}
    async with Stage() as stage:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, _cancel, asyncio.current_task())
        machine = procfs.machine(_versions(stage))
        print(", ".join(f"{name} {value}" for name, value in machine.items()), flush=True)
        sections: dict[str, Callable[[], Awaitable[Result]]] = {
            "drain": lambda: drain.measure(stage, drained, documents, events=events, rounds=arguments.rounds),
            "floors": lambda: floors.measure(
                stage, documents, events=arguments.floor_events, rounds=arguments.floor_rounds
            ),
            "workloads": lambda: workloads.measure(
                stage, pipelines, loads, events=arguments.workload_events, rounds=arguments.workload_rounds
            ),
            "replicas": lambda: replicas.measure(
                stage, replicated, events=arguments.replica_events, rounds=arguments.replica_rounds
            ),
            "latency": lambda: latency.measure(
                stage, programs, rates=arguments.rates, seconds=arguments.seconds, peer_rates=arguments.peer_rates
            ),
            "memory": lambda: memory.measure(stage, events=arguments.events // 3, waiting=arguments.waiting),
            "watchers": lambda: watchers.measure(
                stage, numbers=arguments.watchers, events=arguments.spread, seconds=arguments.idle
            ),
            "fan-out": lambda: fan_out.measure(
                stage,
                [each for each in everyone if isinstance(each, Changewire) and not isinstance(each, InPython)],
                fan_out.Sizes(
                    numbers=arguments.fan_out,
                    events=arguments.fan_out_events,
                    rounds=arguments.fan_out_rounds,
                    rates=arguments.fan_out_rates,
                    seconds=arguments.fan_out_seconds,
                    patience=arguments.patience,
                ),
                [] if arguments.debezium is None else [arguments.debezium],
            ),
            "instances": lambda: instances.measure(
                stage,
                instances.Sizes(
                    watchers=arguments.instances_watchers,
                    kills=arguments.kills,
                    rounds=arguments.instances_rounds,
                    seconds=arguments.instances_seconds,
                    events=arguments.instances_events,
                    patience=arguments.patience,
                ),
            ),
            "snapshot": lambda: snapshots.measure(
                stage,
                snapshots.Sizes(
                    documents=arguments.snapshot_documents,
                    rounds=arguments.snapshot_rounds,
                    kills=arguments.snapshot_kills,
                    others=arguments.snapshot_others,
                    patience=arguments.patience,
                ),
            ),
            "page": lambda: open_pages.measure(
                stage,
                open_pages.Sizes(
                    watchers=arguments.page_watchers,
                    rounds=arguments.page_rounds,
                    seconds=arguments.page_seconds,
                    patience=arguments.patience,
                ),
            ),
            "startup": lambda: startup.measure(stage, programs, rounds=arguments.starts),
        }
        unwritten = ("json", "plots", "peer", "tree", "debezium")
        given = {name: value for name, value in vars(arguments).items() if name not in unwritten}
        for name in arguments.only:
            if name == "page" and open_pages.browser_program() is None:
                print("chromium is not installed (apt-get install chromium): no page is measured", flush=True)
                continue
            print(f"\n… {name}", flush=True)
            began = time.monotonic()
            result = await sections[name]()
            result.data["section_seconds"] = round(time.monotonic() - began, 1)
            results.append(result)
            print(report.show(result), flush=True)
            measured = {each.name: each for each in results}
            if name == "floors" and "drain" in measured:
                results.append(compared := costs.compare(measured["drain"], result))
                print(report.show(compared), flush=True)
            machine["load_after"] = [round(each, 2) for each in os.getloadavg()]
            report.write_json(arguments.json, machine, given, results)
    return results


def _cancel(task: asyncio.Task[object] | None) -> None:
    if task is not None:
        task.cancel()


def _versions(stage: Stage) -> dict[str, str]:
    versions = stage.versions()
    for distribution in ("motor", "pymongo", "nats-py", "orjson", "mq-bridge"):
        try:
            versions[distribution] = importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            versions[distribution] = "not installed"
    return versions


def main(argv: list[str] | None = None) -> int:
    """Run and return the exit code."""
    arguments = parse(argv)
    if sys.platform != "linux":
        print("bench: reads /proc, so it needs Linux", file=sys.stderr)
        return 1
    try:
        results = asyncio.run(run(arguments))
    except (Incomplete, NotAvailable, StartError, TimeoutError) as error:
        print(f"bench: {error}", *getattr(error, "__notes__", ()), sep="\n", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("bench: interrupted", file=sys.stderr)
        return 1
    print(report.show_targets(results))
    print(f"\nwritten to {arguments.json}")
    if arguments.plots is not None:
        from bench import plots

        for path in plots.draw(report.read_json(arguments.json), arguments.plots):
            print(f"drawn to {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
