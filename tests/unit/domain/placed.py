"""What tests of the placement look at: how full members are, where groups are, and what has moved."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from app.domain.placement import UNITS, Load, shares

EVEN = {"a": 1.0, "b": 1.0, "c": 1.0}


def totals(loads: Sequence[Load], owners: Mapping[str, str]) -> dict[str, float]:
    found: dict[str, float] = defaultdict(float)
    for load in loads:
        found[owners[load.name]] += load.weight
    return found


def fullness(loads: Sequence[Load], members: Mapping[str, float], owners: Mapping[str, str]) -> dict[str, float]:
    """What each member has as a part of its share."""
    share, total = shares([round(load.weight * UNITS) for load in loads], members), totals(loads, owners)
    return {member: total.get(member, 0.0) * UNITS / share[member] for member in members}


def homes(loads: Sequence[Load], owners: Mapping[str, str]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for load in loads:
        found[load.group].add(owners[load.name])
    return found


def parts(loads: Sequence[Load], owners: Mapping[str, str]) -> int:
    """How many change streams that takes: one for each group on each member that has a part of it."""
    return sum(len(each) for each in homes(loads, owners).values())


def moved(before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    return {name: (before[name], after[name]) for name in before.keys() & after.keys() if before[name] != after[name]}


def watchers(count: int, groups: int, weight: float = 1.0) -> list[Load]:
    return [Load(f"w{number:04}", f"g{number % groups:03}", weight) for number in range(count)]
