"""Which instance owns which watcher."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Load(NamedTuple):
    name: str
    group: str
    weight: float


def place(loads: Sequence[Load], members: Mapping[str, float], owners: Mapping[str, str]) -> dict[str, str]:
    """To be replaced by the real one."""
    if not members:
        return {}
    count = dict.fromkeys(sorted(members), 0)
    found = {}
    most = -(-len(loads) // len(members))
    free = []
    for load in sorted(loads):
        by = owners.get(load.name)
        if by in count and count[by] < most:
            found[load.name] = by
            count[by] += 1
        else:
            free.append(load.name)
    for name in free:
        by = min(count, key=lambda each: count[each])
        found[name] = by
        count[by] += 1
    return found
