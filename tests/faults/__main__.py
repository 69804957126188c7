"""The command line of `make faults`."""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import sys

from app.embedded import NotAvailable, StartError
from tests.faults.catalogue import FAULTS
from tests.faults.run import Plan, run


def parse(argv: list[str] | None = None) -> Plan:
    """Read the arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults", description="Break things, then look at the streams."
    )
    parser.add_argument("--seed", type=int, help="replays a schedule (default: a new one, which is printed)")
    parser.add_argument("--only", type=_names, default=tuple(FAULTS), metavar="A,B", help=f"of {', '.join(FAULTS)}")
    parser.add_argument("--minutes", type=float, metavar="N", help="round after round, for this long")
    parser.add_argument("--changes", type=int, metavar="N", help="round after round, until so many were made")
    given = parser.parse_args(argv)
    seed = random.randrange(1_000_000) if given.seed is None else given.seed
    return Plan(seed, given.only, given.minutes, given.changes)


def _names(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    unknown = sorted(set(names) - set(FAULTS))
    if unknown:
        raise argparse.ArgumentTypeError(f"there is no {unknown[0]}")
    return names


async def _interruptible(plan: Plan) -> int:
    """SIGTERM ends it as Ctrl-C does: everything that was started is ended."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await run(plan)


def main() -> int:
    """Run, and return the exit code: 0 nothing found, 1 something, 2 misuse, 130 interrupted."""
    plan = parse()
    try:
        return asyncio.run(_interruptible(plan))
    except (NotAvailable, StartError, AssertionError) as error:  # the last: what was awaited did not come
        print(f"WRONG: {error}; seed {plan.seed}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        print(f"interrupted; seed {plan.seed}", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
