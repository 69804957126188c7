"""The shapes of the calls about instances."""

from app.api.schemas.base import Answer, Query, Time, moment, shown
from app.domain.instances import InstanceView, Member, Standing


class InstanceAnswer(Answer):
    """An instance, as it reports itself in the state database. Times are of MongoDB's clock."""

    name: str
    state: Standing
    """`active`: it runs its share of the watchers. `draining`: somebody asked it to give them up. `stopping`: its
    process is about to end, and hands them over. `unfit`: it cannot publish now. `gone`: it was not heard of for five
    seconds; it is listed for an hour."""
    reason: str | None
    """Why it is `unfit` or `gone`."""
    self: bool
    """Whether it is the instance that answers."""
    since: Time
    """When it started."""
    seen: Time
    """When it was last heard of."""
    weight: float
    """How much it takes beside the others: `CHANGEWIRE_WEIGHT`."""
    watchers: int
    """How many watchers it owns, paused and failed ones too."""
    events_per_second: float
    """The changes that it publishes, over the last minute."""
    version: str
    as_of: Time | None
    """Null where the answer is of now. Otherwise the state database could not be asked, and this is how it was then."""

    @staticmethod
    def of(view: InstanceView) -> "InstanceAnswer":
        member = view.member
        return InstanceAnswer(
            name=member.name,
            state=member.standing,
            reason=shown(_reason(member)),
            self=view.itself,
            since=moment(member.since),
            seen=moment(member.seen),
            weight=member.weight,
            watchers=view.watchers,
            events_per_second=round(member.rate, 3),
            version=member.version,
            as_of=moment(view.as_of),
        )


class Force(Query):
    """Whether to drain an instance though no other one could take over."""

    force: bool = False
    """Drain it though no other instance could take over. It runs its watchers until there is one."""


def _reason(member: Member) -> str | None:
    if member.standing is Standing.GONE:
        return f"not heard of for {member.age:.0f} seconds"
    return member.unfit if member.standing is Standing.UNFIT else None
