"""What the demo of many watchers says: a line for each fact, and now and then a table.

Pure: it is given what is so now and what was so before.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from app.cli.fleet.plan import FleetWatcher
from app.domain.lifecycle import State
from app.domain.status import Lag, Status

FEW = 3
"""Up to so many watchers are named; more are counted."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A watcher as it was at a look."""

    state: State
    reason: str | None = None


def states(statuses: Mapping[str, Status]) -> dict[str, Seen]:
    """What `changes` compares."""
    return {name: Seen(status.state, status.reason) for name, status in statuses.items()}


def changes(before: Mapping[str, Seen], now: Mapping[str, Seen]) -> list[str]:
    """Say which watchers have another state than before: by name where they are few, else by number."""
    moved: dict[tuple[State, State], list[str]] = {}
    for name, seen in now.items():
        was = before.get(name)
        if was is not None and was.state is not seen.state:
            moved.setdefault((was.state, seen.state), []).append(name)
    said = []
    for (old, new), names in moved.items():
        if len(names) > FEW:
            said.append(f"{len(names)} watchers are {new} now (they were {old}){_why(now[names[0]])}")
        else:
            said += [
                f"{name} is {new} now (it was {old}){_why(now[name]) if new is State.FAILED else ''}" for name in names
            ]
    gone = [name for name in before if name not in now]
    added = [name for name in now if before and name not in before]
    said += [f"{name} was removed" for name in gone[:FEW]] + [f"{name} was added" for name in added[:FEW]]
    return said


def _why(seen: Seen) -> str:
    return f": {seen.reason}" if seen.reason and seen.state in (State.FAILED, State.RETRYING, State.FENCED) else ""


def counts(statuses: Mapping[str, Status]) -> str:
    """How many watchers are in each state, the most frequent first."""
    found = Counter(status.state.lower() for status in statuses.values())
    return ", ".join(f"{count} {state}" for state, count in found.most_common())


def table(watchers: Sequence[FleetWatcher], statuses: Mapping[str, Status], lags: Mapping[str, Lag]) -> list[str]:
    """Lines with a row for each database: watchers, those that run, changes per second, and the largest lag."""
    lines = [f"{'database':<12}{'watchers':>9}{'running':>9}{'changes/s':>11}{'most lag':>10}"]
    for database in dict.fromkeys(each.database for each in watchers):
        names = [each.name for each in watchers if each.database == database and each.name in statuses]
        running = [name for name in names if statuses[name].state is State.RUNNING]
        rate = sum(statuses[name].rate_10s for name in names)
        behind = [lags[name].seconds or 0.0 for name in running if name in lags]
        lag = f"{max(behind):.0f} s" if behind else "-"
        lines.append(f"{database:<12}{len(names):>9}{len(running):>9}{rate:>11.1f}{lag:>10}")
    return lines
