"""The instances on one state database, and which of them owns which watcher: the values, and what follows from them.

Each watcher has one owner, which alone runs it. Who that is stands in one record that all instances agree on. Placement
is for efficiency: where two instances run a watcher for a moment, the fence on its stream lets one of them publish.
"""

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final, NamedTuple

from app.domain.measured import FLOOR
from app.domain.placement import Load, place

GONE_SECONDS: Final = 5.0
"""A member that was not heard of for so long, by the server's clock, is gone."""
FORMAT: Final = 1
"""The registry's format that this version knows. A later version that stores something that this one would damage or
misunderstand counts it up."""


class Standing(StrEnum):
    """What an instance does among the others."""

    ACTIVE = "active"
    """It runs its share."""
    DRAINING = "draining"
    """Somebody asked it to give up its watchers."""
    STOPPING = "stopping"
    """Its process is about to end, and hands its watchers over."""
    UNFIT = "unfit"
    """It cannot publish now, and says why."""
    GONE = "gone"
    """It was not heard of for too long."""


@dataclass(frozen=True, slots=True)
class Member:
    """An instance as it reports itself. Times are seconds since 1970 by MongoDB's clock."""

    name: str
    session: str
    """Random, one for each process."""
    weight: float = 1.0
    stopping: bool = False
    drained: bool = False
    """Whether somebody asked it to give up its watchers."""
    unfit: str | None = None
    """Why it cannot publish for the time being."""
    idle: bool = False
    """Whether it runs nothing and plans nothing, since the registry is of a format that it does not know."""
    rate: float = 0.0
    """The changes that it publishes per second."""
    version: str = ""
    process: str = ""
    """Machine, process id and start of the process; see `control/process.py`."""
    since: float = 0.0
    seen: float = 0.0
    age: float = 0.0
    """Seconds since it was last heard of, when the report was read."""

    @property
    def gone(self) -> bool:
        return self.age > GONE_SECONDS

    @property
    def draining(self) -> bool:
        """Whether it takes no watchers, and gives up those that it has."""
        return self.stopping or self.drained

    @property
    def eligible(self) -> bool:
        """Whether watchers may be given to it."""
        return not self.gone and not self.draining and self.unfit is None

    @property
    def standing(self) -> Standing:
        if self.gone:
            return Standing.GONE
        if self.stopping:
            return Standing.STOPPING
        if self.unfit is not None:
            return Standing.UNFIT
        return Standing.DRAINING if self.drained else Standing.ACTIVE


@dataclass(frozen=True, slots=True)
class Owner:
    """Who owns a watcher."""

    by: str
    """The name of the instance."""
    to: str | None = None
    """The instance that it is to be handed over to, once its owner has let go of it."""
    weight: float = FLOOR
    """What it weighs: the changes per second that were measured."""
    group: str = ""
    """Watchers of one group could share a change stream."""

    @property
    def leaving(self) -> bool:
        return self.to is not None and self.to != self.by


@dataclass(frozen=True, slots=True)
class InstanceView:
    """An instance as it is told: what it reports, and what it owns by the record."""

    member: Member
    watchers: int
    itself: bool
    """Whether it is the one that tells."""
    as_of: float | None = None
    """How old that is, where the state database could not be asked: seconds since 1970. None: it is of now."""


@dataclass(frozen=True, slots=True)
class Owners:
    """The record of all owners. Each change of it has a revision; 0: there is no record."""

    revision: int = 0
    of: Mapping[str, Owner] = field(default_factory=dict)


class Available(NamedTuple):
    """All that a plan depends on of the members: who keeps what it owns, and who may be given more, with its weight."""

    live: Set[str]
    eligible: Mapping[str, float]


def available(members: Iterable[Member]) -> Available:
    members = list(members)
    return Available(
        {member.name for member in members if not member.gone and not member.idle},
        {member.name: member.weight for member in members if member.eligible},
    )


def planned(owners: Mapping[str, Owner], members: Iterable[Member]) -> dict[str, Owner]:
    """Return the owners that should change, as they should be.

    What a gone or idle member owned is given away at once. A live owner keeps a watcher until it has let go of it."""
    live, eligible = available(members)
    if not eligible:
        return {}
    loads = [Load(name, owner.group, max(FLOOR, owner.weight)) for name, owner in owners.items()]
    today = {}
    for name, owner in owners.items():
        today[name] = owner.to if owner.to is not None and owner.to in eligible else owner.by
    target = place(loads, eligible, today)
    changed = {}
    for name, owner in owners.items():
        goal = target[name]
        if owner.by not in live:
            then = replace(owner, by=goal, to=None)
        else:
            then = replace(owner, to=None if goal == owner.by else goal)
        if then != owner:
            changed[name] = then
    return changed


def speaker(members: Iterable[Member]) -> str | None:
    """Return the member that plans for all: the first live one by name. Two that think so do no harm."""
    return min((member.name for member in members if not member.gone and not member.idle), default=None)
