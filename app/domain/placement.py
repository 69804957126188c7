"""Which instance runs which watcher: a pure function of the watchers' weights, the live members and today's owners.

A move costs a watcher a short pause, and each instance that has a part of a group opens a change stream for it. So what
is in order stays where it is:

1. **Keep.** A watcher whose owner is a member stays there.
2. **Settle.** The others go, group by group and the heaviest first, to a member with their group, else to the emptiest.
   A group is divided only if the member would otherwise be more than `AIM` above its share.
3. **Balance.** Only if a member is more than `TOLERANCE` away from its share, it gives or takes until it is within
   `AIM`. Between the two is the hysteresis: noise does not undo what was just done.
4. **Reunite.** The smaller part of a group comes to a larger one where both members are near their shares then.

What holds, with `shares` as they are below, for members of one weight, where h is the heaviest watcher that is not
larger than a share:

- Each member is within 20 % of its share, or no further away than h / `CLEAR`. So if none of these watchers is heavier
  than 12 % of a share, all members are within 20 %. For members of different weights, 12 % of the smallest share.
- A watcher that is larger than a share is alone on its member, as far as the others are light, and the others share the
  rest.
- The result is a fixed point: the same call with the result as `owners` changes nothing.

Why this ends: let f be how far a member is beyond `TOLERANCE`, as a part of its share, and Φ the sum of share × f². A
move of *balance* goes from a fuller member to an emptier one and leaves both between what they were. f² is convex, and
f > 0 for one of the two, so Φ falls. A reunion takes no member further beyond `TOLERANCE`, so Φ does not grow, and
there is one part less. Inside, weights are whole numbers, so that a sum does not depend on its order.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

TOLERANCE: Final = 0.2
"""How far from its share, as a part of it, a member may be before watchers are moved."""
AIM: Final = 0.1
"""How near to its share a member is brought once watchers are moved."""
REUNITED_WITHIN: Final = 0.05
"""How near to their shares two members are after a reunion, unless they were further away before. With less room, noise
would divide the group again."""
CLEAR: Final = 0.6
"""The largest part of the difference of two members that a move may carry. At 1 they would only change their places."""
UNITS: Final = 1024
"""Weights are counted in 1/1024 events/s."""


class Load(NamedTuple):
    """A watcher to be placed. Names are unique. `group`: watchers of one group can share a change stream, and are
    better together. `weight`: events/s, smoothed, at least 1."""

    name: str
    group: str
    weight: float


def place(loads: Sequence[Load], members: Mapping[str, float], owners: Mapping[str, str]) -> dict[str, str]:
    """Return the owner of each watcher; no owner where there is no member.

    `members`: those that may own watchers, with their weights (> 0). `owners`: today's, some of whom may be gone.
    The order of what is given does not matter.
    """
    if not members or not loads:
        return {}
    placement = _Placement(loads, members)
    placement.settle(placement.keep(owners))
    moved = True
    while moved:
        placement.balance()
        moved = placement.reunite()
    return placement.owners()


def shares(weights: Sequence[float], members: Mapping[str, float]) -> dict[str, float]:
    """Return each member's share of the watchers' weights, in the weights' unit. There is at least one of both.

    A watcher that is larger than a share takes a member for itself. So the others share what is left when such watchers
    and their members are taken away; the largest members are taken to be theirs.
    """
    by_size = sorted(members.values(), reverse=True)
    rest, capacity = sum(sorted(weights)), sum(by_size)
    level = rest / capacity
    for weight, largest in zip(sorted(weights, reverse=True), by_size[:-1], strict=False):
        if weight <= level * largest:
            break
        rest -= weight
        capacity -= largest
        level = rest / capacity if rest else weight / largest
    return {member: level * weight for member, weight in members.items()}


class _Placement:
    """Who owns what while it is being decided. A *part* is what one member owns of one group."""

    def __init__(self, loads: Sequence[Load], members: Mapping[str, float]) -> None:
        self._loads = sorted(loads)
        self._members = sorted(members)
        self._weight = {load.name: max(UNITS, round(load.weight * UNITS)) for load in self._loads}
        self._share = shares(list(self._weight.values()), members)
        self._total = dict.fromkeys(self._members, 0)
        self._parts: dict[str, dict[str, dict[str, int]]] = {member: {} for member in self._members}
        """Of each member, by group: the weights of its watchers, by name."""
        self._sizes: dict[str, dict[str, int]] = {member: {} for member in self._members}
        """Of each member, by group: the weight of its part."""

    def owners(self) -> dict[str, str]:
        return {name: member for member, parts in self._parts.items() for part in parts.values() for name in part}

    def keep(self, owners: Mapping[str, str]) -> dict[str, dict[str, int]]:
        """Leave with its owner what has one, and return the others' weights by group and name."""
        orphans: dict[str, dict[str, int]] = defaultdict(dict)
        for name, group, _ in self._loads:
            owner = owners.get(name, "")
            if owner in self._parts:
                self._put(owner, group, {name: self._weight[name]})
            else:
                orphans[group][name] = self._weight[name]
        return orphans

    def settle(self, orphans: Mapping[str, dict[str, int]]) -> None:
        """Give an owner to those without one: to a whole group where there is room, else to as few parts as fit."""
        for group, left in sorted(orphans.items(), key=lambda each: (-sum(each[1].values()), each[0])):
            while left:
                size = sum(left.values())
                emptiest = min(self._members, key=lambda member: (self._full(member, size), member))
                roomy = [each for each in (*self._homes(group), emptiest) if self._full(each, size) <= 1 + AIM]
                if roomy or len(left) == 1:
                    self._put(roomy[0] if roomy else emptiest, group, left)
                    break
                emptiest = min(self._members, key=lambda member: (self._full(member), member))
                some = _fitting(left, self._share[emptiest] - self._total[emptiest])
                if not some:
                    heaviest = min(left, key=lambda name: (-left[name], name))
                    some = {heaviest: left[heaviest]}
                self._put(emptiest, group, some)
                left = {name: weight for name, weight in left.items() if name not in some}

    def balance(self) -> None:
        """Bring each member that is beyond `TOLERANCE` within `AIM`, as far as the sizes of the watchers allow."""
        stuck = set[str]()
        while off := [m for m in self._members if m not in stuck and self._away(m) > TOLERANCE]:
            member = max(off, key=lambda m: (self._away(m), m))
            moved = False
            while self._away(member) > AIM and self._bring_nearer(member):
                moved = True
            if moved:
                stuck.clear()  # others may go on, now that this one has changed
            else:
                stuck.add(member)

    def reunite(self) -> bool:
        """Bring parts of a group together where that takes no member further away than it may be; return whether."""
        moved = False
        for group in sorted({group for parts in self._parts.values() for group in parts}):
            homes = self._homes(group)
            for part in reversed(homes[1:]):
                moved |= any(self._join(group, part, home) for home in homes if home != part)
        return moved

    def _join(self, group: str, giver: str, home: str) -> bool:
        """Move a part of a group to a larger one, alone or for a part of another group; return whether that fits."""
        there, here = self._sizes[home], self._sizes[giver]
        if (-there.get(group, 0), home) > (-here[group], giver):
            return False  # only smaller parts move: a reunion should be worth its moves
        for other in (None, *sorted(there, key=lambda each: (each not in here, there[each], each))):
            more = here[group] - (0 if other is None else there[other])
            if other != group and self._may(home, more) and self._may(giver, -more):
                self._move(group, self._parts[giver][group], giver, home)
                if other is not None:
                    self._move(other, self._parts[home][other], home, giver)
                return True
        return False

    def _may(self, member: str, more: int) -> bool:
        """Return whether a reunion may change this member's total by so much."""
        now, then = self._full(member), self._full(member, more)
        return min(now, 1 - REUNITED_WITHIN) <= then <= max(now, 1 + REUNITED_WITHIN)

    def _bring_nearer(self, member: str) -> bool:
        """Make one move from a member that is too full, or to one that is too empty; return whether there is one."""
        full = self._full(member)
        others = sorted(self._members, key=lambda each: (self._full(each), each), reverse=full < 1)
        if full > 1:
            return any(self._give(member, taker) for taker in others if self._full(taker) < full)
        return any(self._give(giver, member) for giver in others if self._full(giver) > full)

    def _give(self, giver: str, taker: str) -> bool:
        """Move what balances two members; return whether there is such a thing.

        Whole parts are preferred, best of all those of groups that the taker has, so that few groups are divided.
        Together they may fill what the taker lacks of its share or the giver has beyond it. One alone may carry more.
        """
        room = min(self._share[taker] - self._total[taker], self._total[giver] - self._share[giver])
        most = max(room, CLEAR * (self._full(giver) - self._full(taker)) * min(self._share[giver], self._share[taker]))
        parts, there = self._sizes[giver], self._parts[taker]
        by_gain = sorted(parts, key=lambda group: (group not in there, -parts[group], group))
        moved = False
        for group in by_gain:
            if parts[group] <= room:
                room -= parts[group]
                self._move(group, self._parts[giver][group], giver, taker)
                moved = True
        if moved:
            return True
        for group in sorted(by_gain, key=lambda group: (group not in there, parts[group], group)):
            size = parts[group]
            if size <= most and self._full(giver, -size) >= 1 - AIM and self._full(taker, size) <= 1 + AIM:
                self._move(group, self._parts[giver][group], giver, taker)
                return True
        for group in by_gain:
            if some := _fitting(self._parts[giver][group], room):
                self._move(group, some, giver, taker)
                return True
        weight, _, group, name = min(
            (weight, group not in there, group, name)
            for group, part in self._parts[giver].items()
            for name, weight in part.items()
        )
        if weight <= most:
            self._move(group, {name: weight}, giver, taker)
        return weight <= most

    def _homes(self, group: str) -> list[str]:
        """The members with a part of the group, the largest part first."""
        found = [member for member in self._members if group in self._parts[member]]
        return sorted(found, key=lambda member: (-self._sizes[member][group], member))

    def _full(self, member: str, more: int = 0) -> float:
        """What a member has as a part of its share: 1 is balanced."""
        return (self._total[member] + more) / self._share[member]

    def _away(self, member: str) -> float:
        return abs(self._full(member) - 1)

    def _move(self, group: str, some: Mapping[str, int], giver: str, taker: str) -> None:
        self._put(taker, group, some)
        self._sizes[giver][group] -= sum(some.values())
        self._total[giver] -= sum(some.values())
        left = self._parts[giver].pop(group)
        if len(left) > len(some):
            self._parts[giver][group] = {name: weight for name, weight in left.items() if name not in some}
        else:
            del self._sizes[giver][group]

    def _put(self, member: str, group: str, some: Mapping[str, int]) -> None:
        size = sum(some.values())
        self._parts[member].setdefault(group, {}).update(some)
        self._sizes[member][group] = self._sizes[member].get(group, 0) + size
        self._total[member] += size


def _fitting(weights: Mapping[str, int], room: float) -> dict[str, int]:
    """Return those that fit into `room` together, the heaviest first."""
    some = dict[str, int]()
    for name, weight in sorted(weights.items(), key=lambda each: (-each[1], each[0])):
        if weight <= room:
            room -= weight
            some[name] = weight
    return some
