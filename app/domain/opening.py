"""Where a watcher goes on when it is opened: one decision, from values that were read before it.

`decide_opening` takes the facts, what the user wants, and the clock. It returns a plan: from which position to go on,
what has to be proved before that position is believed, what is counted, and what a person should be told. Nothing is
read and nothing is written here. In which order the facts are read, why, and what is done about the plan is in
`pipeline/opening.py`, which opens with the theory of operation.
"""

from dataclasses import dataclass

from app.domain.counted import Count, count_at_opening
from app.domain.errors import HistoryLost, PositionUndecidable
from app.domain.evidence import Claim, claim_of_message, claim_of_position
from app.domain.position import (
    Checkpoint,
    OwnMessage,
    Reached,
    Tail,
    check_searched,
    first_epoch,
    last_epoch,
    last_known,
    last_own,
    lost_end,
    recreated,
    recreation,
)
from app.domain.watcher import StoredWatcher, Watcher


@dataclass(frozen=True, slots=True)
class Facts:
    """What an opening has read: the stream's end, the stored position, and what this process remembers.

    `exclusive` says that the stream carries this watcher's subjects alone, `displaced` that another message has the
    place of the last one that checkpoint or memory knows.
    """

    tail: Tail
    checkpoint: Checkpoint | None
    memory: Reached | None
    exclusive: bool
    displaced: bool = False

    @property
    def known(self) -> Reached | None:
        """The later of checkpoint and memory, where either is of the last epoch."""
        return last_known(self.tail, self.checkpoint, self.memory)

    @property
    def lost_end(self) -> bool:
        """Whether the stream lost messages of ours that it had acknowledged."""
        known = self.known
        return (
            known is not None
            and not recreated(self.tail, known)
            and lost_end(self.tail, known, displaced=self.displaced)
        )


@dataclass(frozen=True, slots=True)
class GoOn:
    """Read on after `token`, publish in `epoch`, expecting `fence`."""

    token: str
    epoch: int
    fence: int


@dataclass(frozen=True, slots=True)
class FirstStart:
    """Nothing was ever reached: resolve the start position and store it before the first event is read."""

    epoch: int
    fence: int


@dataclass(frozen=True, slots=True)
class Refill:
    """The stream that had all up to `token` is gone: say so on the new one, expecting `fence`, and go on in `epoch`."""

    token: str
    epoch: int
    fence: int


Beginning = GoOn | FirstStart | Refill


@dataclass(frozen=True, slots=True)
class Plan:
    """What an opening does.

    `claim` has to be proved first. `own` is our last message of the epoch, where the stream or what is known tells it.
    `lost_end` says that messages of ours are gone from the stream's end, and are published again.
    """

    beginning: Beginning
    claim: Claim | None
    own: OwnMessage | None
    count: Count
    lost_end: bool

    def reached(self, token: str, tail: Tail) -> Reached:
        """Return the position to begin at; `token` is the plan's own, or where the first start was found to be."""
        sequence = tail.end - self.count.gone
        return Reached(token, self.beginning.epoch, sequence, tail.created, self.own, counted=self.count.certain)


def decide_opening(facts: Facts, stored: StoredWatcher, now: float) -> Plan:
    """Decide what the opening of a watcher does; `now` is in seconds since 1970.

    Raises HistoryLost where the stream was recreated and the user wants to be asked then, PositionUndecidable where
    nothing tells the position, ScopeMismatch where nothing can prove it."""
    beginning = decide_beginning(facts, stored, now)
    lost, known = facts.lost_end, facts.known
    # Of messages that are lost, or were on another stream, none is our last one here.
    before = None if known is None or lost or isinstance(beginning, Refill) else known.own
    goes_on = isinstance(beginning, GoOn) and not lost
    return Plan(
        beginning=beginning,
        claim=_claim(facts, beginning, stored.watcher),
        own=last_own(facts.tail, beginning.epoch, before),
        count=count_at_opening(facts.tail, facts.checkpoint, facts.memory, goes_on=goes_on),
        lost_end=lost,
    )


def decide_beginning(facts: Facts, stored: StoredWatcher, now: float) -> Beginning:
    """Decide where to go on: at the latest of stream, checkpoint and memory, within the last epoch.

    A watcher that was added with an explicit start (`new_start`) and knows no position begins there, whatever the
    stream holds. A stream that was recreated begins a new epoch, where `on_history_lost` says that it may. Once there
    is a message on it, that tells how far the watcher got, even if the checkpoint is still the previous stream's.
    Raises HistoryLost, PositionUndecidable, as `decide_opening`."""
    tail, checkpoint, watcher = facts.tail, facts.checkpoint, stored.watcher
    fence = tail.fence(exclusive=facts.exclusive)
    epoch, known = last_epoch(tail, checkpoint, facts.memory)
    # What happens from now on cannot have been published before: it needs no epoch of its own.
    first = 0 if watcher.start.at == "latest" else first_epoch(tail, now)
    if not known and stored.new_start:
        return FirstStart(epoch + 1 if tail.own else first, fence)

    own = tail.own.id.position if tail.own is not None and tail.own.id.epoch == epoch else None
    latest = facts.known
    moved = checkpoint is not None and checkpoint.epoch is not None and checkpoint.sequence is None
    if not moved:  # if a person has set the position, nothing has to be found first
        check_searched(tail)
    if latest is None:
        return GoOn(own, epoch, fence) if own is not None else FirstStart(first, fence)
    if recreated(tail, latest):
        if watcher.on_history_lost != "fail":
            return Refill(max(latest.token, own or ""), epoch + 1, fence)
        raise HistoryLost(f"{recreation(tail)}, or set on_history_lost to latest or earliest")
    if facts.lost_end:
        # The server lost the stream's end (it syncs lazily): what is no longer there has to be published again.
        if own is None:
            raise PositionUndecidable(
                f"the stream lost its end (last sequence {tail.last_sequence}, "
                f"{latest.own.sequence if latest.own else latest.sequence} was acknowledged) "
                "and holds no message of this watcher; rewind the watcher to say where it continues"
            )
        return GoOn(own, epoch, fence)
    return GoOn(max(latest.token, own or ""), epoch, fence)


def _claim(facts: Facts, beginning: Beginning, watcher: Watcher) -> Claim | None:
    """Return what has to be proved. A watcher that begins at its start, on a stream with messages of ours, proves the
    last one as well: otherwise it would displace another deployment's watcher."""
    tail, stream = facts.tail, watcher.sink.stream
    if isinstance(beginning, FirstStart):
        return None if tail.own is None else claim_of_message(tail.own, stream)
    return claim_of_position(
        beginning.token, beginning.epoch, tail=tail, checkpoint=facts.checkpoint, memory=facts.memory, stream=stream
    )
