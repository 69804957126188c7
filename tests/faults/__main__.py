"""The command line of `make faults`, `make faults-full` and `make soak`."""

from __future__ import annotations

import argparse
import asyncio
import random
import shlex
import signal
import sys
from dataclasses import replace
from pathlib import Path

from app.devservers.servers import NotAvailable, StartError
from tests.faults.catalogue import FAULTS
from tests.faults.forms import ALL, CROWD, INSTANCES, SNAPSHOTS
from tests.faults.run import Plan, run
from tests.faults.testbed import RECOVERY_SECONDS, SILENCE_SECONDS, Load
from tests.faults.writers import BURSTS

FORMS = {"ways": FAULTS, "crowd": CROWD, "instances": INSTANCES, "snapshots": SNAPSHOTS}
MINUTES = 11.0
PARTS = {"ways": 0.37, "crowd": 0.2, "instances": 0.25, "snapshots": 0.18}
"""How much of the minutes each form gets."""
FULL = {"ways": (200, 300_000), "crowd": (40, None), "instances": (110, 200_000), "snapshots": (60, None)}
"""Faults and changes of each form in a full run."""
FULL_LOAD = Load(writers=8, pause=0.03, kinds=BURSTS)


def parse(argv: list[str] | None = None) -> list[Plan]:
    """Read the arguments. Returns a plan for each form, where nothing else was asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults", description="Break things, then look at the streams."
    )
    parser.add_argument("--seed", type=int, help="replays a schedule (default: a new one, which is printed)")
    parser.add_argument("--only", type=_names, metavar="A,B", help=f"each of these once: {', '.join(ALL)}")
    parser.add_argument("--all", action="store_true", help="every fault once")
    parser.add_argument(
        "--minutes", type=float, metavar="N", help=f"round after round, for this long (default: {MINUTES:g})"
    )
    parser.add_argument(
        "--form",
        choices=FORMS,
        help="this form alone: a watcher for each way to publish, forty, three instances, or snapshots all the time",
    )
    parser.add_argument(
        "--full", action="store_true", help="350 faults or more over 500,000 changes or more, at a higher load"
    )
    parser.add_argument("--mongod", type=program, metavar="FILE", help="run on this mongod (make: NEWER=1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there, for tests.faults.report")
    parser.add_argument("--patience", type=float, default=RECOVERY_SECONDS, metavar="SECONDS", help=argparse.SUPPRESS)
    parser.add_argument("--silence", type=float, default=SILENCE_SECONDS, metavar="SECONDS", help=argparse.SUPPRESS)
    given = parser.parse_args(argv)
    seed = random.randrange(1_000_000) if given.seed is None else given.seed
    minutes = given.minutes
    if minutes is None and not (given.only or given.all or given.full):
        minutes = MINUTES
    forms = {name: form for name, form in FORMS.items() if given.form in (None, name)}
    chosen = {name: [fault for fault in form if fault in (given.only or form)] for name, form in forms.items()}
    chosen = {name: faults for name, faults in chosen.items() if faults}
    plan = Plan(
        seed, minutes=minutes, patience=given.patience, silence=given.silence, mongod=given.mongod,
        command=_command(seed, argv),
    )  # fmt: skip
    plans = []
    for name, names in chosen.items():
        json, part = given.json, 1.0
        if len(chosen) > 1:
            part = PARTS[name]
            if name != "ways":
                json = json and json.with_suffix(f".{name}{json.suffix}")
        faults, changes = FULL[name] if given.full else (None, None)
        plans.append(
            replace(
                plan,
                names=tuple(names),
                minutes=None if minutes is None else minutes * part,
                load=FULL_LOAD if given.full and name not in ("crowd", "snapshots") else None,
                json=json,
                faults=faults,
                changes=changes,
            )
        )
    return plans


def _command(seed: int, argv: list[str] | None) -> str:
    """What repeats the run."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    for option, words in (("--seed", 2), ("--json", 2)):
        if option in arguments:
            at = arguments.index(option)
            del arguments[at : at + words]
    if arguments == ["--full"]:
        return f"make faults-full SEED={seed}"
    rest = f' ARGS="{shlex.join(arguments)}"' if arguments else ""
    return f"make faults SEED={seed}{rest}"


def program(text: str) -> Path:
    """The program of that path, wherever it is started."""
    path = Path(text).absolute()
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"there is no {path}")
    return path


def _names(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    unknown = sorted(set(names) - set(ALL))
    if unknown:
        raise argparse.ArgumentTypeError(f"there is no {unknown[0]}")
    return names


async def _interruptible(plans: list[Plan]) -> int:
    """One after the other. SIGTERM ends it as Ctrl-C does: everything that was started is ended."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return max([await run(plan) for plan in plans])


def main() -> int:
    """Run, and return the exit code: 0 nothing found, 1 something, 2 misuse, 130 interrupted."""
    plans = parse()
    seed = plans[0].seed
    try:
        return asyncio.run(_interruptible(plans))
    except (NotAvailable, StartError, AssertionError) as error:  # the last: what was awaited did not come
        print(f"WRONG: {error}; seed {seed}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        print(f"interrupted; seed {seed}", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
