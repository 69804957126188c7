"""Measure on this machine, with a mongod and a nats-server of its own; Linux, about five minutes (--quick: two).

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

from app.embedded import NotAvailable, StartError
from bench import drain, latency, memory, procfs, report, startup, watchers
from bench.contenders import Changewire, Contender, contenders, encoders
from bench.report import Result
from bench.stage import Incomplete, Stage

SECTIONS = ("drain", "latency", "memory", "watchers", "startup")


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the arguments; what `--quick` makes smaller is only what was not given."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__, allow_abbrev=False)
    parser.add_argument("--quick", action="store_true", help="a short run: shows that it works, not how fast it is")
    parser.add_argument("--only", type=_sections, default=SECTIONS, metavar="A,B", help=f"of {', '.join(SECTIONS)}")
    parser.add_argument("--json", type=Path, default=Path("bench/results/latest.json"), help="default: %(default)s")
    parser.add_argument("--no-peer", action="store_true", help="Changewire alone, without mq-bridge")
    sizes = {
        "events": ("waiting in the drain", 50_000, 10_000),
        "rounds": ("of the drain", 3, 1),
        "seconds": ("of each rate of the latency section", 30, 5),
        "waiting": ("events written while NATS is stopped", 200_000, 20_000),
        "watchers": ("running at once", 50, 50),
        "spread": ("events over those watchers", 500, 100),
        "starts": ("of each program", 5, 2),
    }
    for name, (what, full, quick) in sizes.items():
        parser.add_argument(
            f"--{name}", type=_positive, metavar="N", help=f"{what} (default {full:,}; quick {quick:,})"
        )
    parser.add_argument(
        "--rates", type=_rates, default=[100], metavar="R,R", help="inserts/s for latency (default 100)"
    )
    arguments = parser.parse_args(argv)
    for name, (_, full, quick) in sizes.items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, quick if arguments.quick else full)
    if arguments.events < 2:
        parser.error("--events has to be 2 or more")
    return arguments


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value


def _rates(text: str) -> list[int]:
    return [_positive(part) for part in text.split(",")]


def _sections(text: str) -> tuple[str, ...]:
    chosen = tuple(part for part in text.split(",") if part)
    if not chosen or not set(chosen) <= set(SECTIONS):
        raise argparse.ArgumentTypeError(f"choose of {', '.join(SECTIONS)}")
    return chosen


async def run(arguments: argparse.Namespace) -> list[Result]:
    """Run the sections, print each as it ends, and write the file after each: an abandoned run keeps what it has."""
    results: list[Result] = []
    everyone: list[Contender] = [Changewire()] if arguments.no_peer else contenders()
    if len(everyone) == 1 and not arguments.no_peer:
        print("mq-bridge is not installed (pip install 'changewire[dev]'): Changewire is measured alone", flush=True)
    async with Stage() as stage:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, _cancel, asyncio.current_task())
        machine = procfs.machine(_versions(stage))
        print(", ".join(f"{name} {value}" for name, value in machine.items()), flush=True)
        sections: dict[str, Callable[[], Awaitable[Result]]] = {
            "drain": lambda: drain.measure(
                stage, [*everyone, *encoders()], events=arguments.events, rounds=arguments.rounds
            ),
            "latency": lambda: latency.measure(stage, everyone, rates=arguments.rates, seconds=arguments.seconds),
            "memory": lambda: memory.measure(stage, events=arguments.events, waiting=arguments.waiting),
            "watchers": lambda: watchers.measure(stage, watchers=arguments.watchers, events=arguments.spread),
            "startup": lambda: startup.measure(stage, everyone, rounds=arguments.starts),
        }
        given = {name: value for name, value in vars(arguments).items() if name != "json"}
        for name in SECTIONS:
            if name not in arguments.only:
                continue
            print(f"\n… {name}", flush=True)
            began = time.monotonic()
            result = await sections[name]()
            result.data["section_seconds"] = round(time.monotonic() - began, 1)
            results.append(result)
            print(report.show(result), flush=True)
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
    except (Incomplete, NotAvailable, StartError) as error:
        print(f"bench: {error}", *getattr(error, "__notes__", ()), sep="\n", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("bench: interrupted", file=sys.stderr)
        return 1
    print(report.show_targets(results))
    print(f"\nwritten to {arguments.json}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
