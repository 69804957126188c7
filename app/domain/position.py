"""How far a watcher has got: what tells it, and how what is told compares.

Three places tell: the last message on the stream (`Tail`), the stored position (`Checkpoint`), and what this process
remembers (`Reached`). The questions here are asked of them by the two decisions of the protocol: where an opening goes
on (`opening.py`), and where a writer is after an unknown outcome (`read_back.py`). All are pure functions of values.
"""

from dataclasses import dataclass, field, replace

from app.domain.errors import PositionUndecidable, ScopeMismatch, SourceUnavailable
from app.domain.tokens import MessageId, cluster_time
from app.domain.watcher import Route


@dataclass(frozen=True, slots=True)
class OwnMessage:
    """A message of ours on the stream: its sequence and its parsed id."""

    sequence: int
    id: MessageId


@dataclass(frozen=True, slots=True)
class Reached:
    """A position that is acknowledged: everything up to `token` is on the stream, or was not to be published.

    `sequence` is the stream's last sequence when it was reached, `stream_created` the creation time that the server
    gives for the stream (it tells a stream from a later one of the same name). Either is None where it is not known,
    as in a checkpoint of mongodb-nats-connector. `own` is our last message of that epoch up to there, None where there
    was none yet or it is not known: only where it was shows, on a stream that others publish to, whether the end was
    lost.

    `proved` says that the position is known to be one of this deployment, `counted` that every message on the stream
    after `sequence` is a change of this watcher after `token`, as long as the stream is the watcher's alone. `ahead`
    are collections whose changes are published up to a later token each (`entries.py`).
    """

    token: str
    epoch: int
    sequence: int | None = None
    stream_created: str | None = None
    own: OwnMessage | None = None
    proved: bool = True
    counted: bool = True
    ahead: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A stored position. `epoch` is None where mongodb-nats-connector wrote it; `updated_at` is in seconds since
    1970.

    `route` is what it is a position of; None where that is not known, and taken for the watcher's own then.
    `unsettled` are messages of ours that may not be in their place (`pipeline/window_recovery.py`): until they are
    looked at, nothing tells whether all up to `token` is on the stream. `counted` is that of `Reached`.
    `native` says whether it was written to the very collection that it was read from: False where it was copied there,
    None where it does not tell, as those of mongodb-nats-connector. `ahead` is that of `Reached`. `parts` are what the
    places of several entries hold, in their order, where the position was put together from them (`entries.py`).
    """

    token: str
    epoch: int | None = None
    sequence: int | None = None
    stream_created: str | None = None
    scope: str | None = None
    watcher: str | None = None
    route: Route | None = None
    updated_at: float | None = None
    own: OwnMessage | None = None
    unsettled: tuple[OwnMessage, ...] = ()
    counted: bool = True
    native: bool | None = field(default=True, compare=False)
    ahead: tuple[tuple[str, str], ...] = ()
    parts: tuple["Checkpoint | None", ...] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class Tail:
    """What the stream's end looks like, read from its leader.

    `last_sequence` is the stream's, `space_sequence` that of the last message in the watcher's subject space (0: none).
    `own` is the last message there with a token as id, `foreign` how many others without one came after it,
    and `unsearched` says that the search for an own one was given up before what is known was reached.
    `counts` says that nothing but this watcher's messages can take a sequence of the stream, so that they can be
    counted where they are gone. `quiet` is for how many seconds nothing has come, by the server's clock.
    """

    created: str
    last_sequence: int
    space_sequence: int
    own: OwnMessage | None = None
    foreign: int = 0
    unsearched: bool = False
    counts: bool = False
    quiet: float = 0.0

    @property
    def end(self) -> int:
        """The stream's last sequence, a message included that came between the two reads of a tail."""
        return max(self.last_sequence, self.space_sequence)

    def fence(self, *, exclusive: bool) -> int:
        """Return the last sequence that the next publish expects: the stream's own, or its subject space's."""
        return self.end if exclusive else self.space_sequence


def last_epoch(tail: Tail, checkpoint: Checkpoint | None, memory: Reached | None) -> tuple[int, list[Reached]]:
    """Return the last epoch that any of the three knows, and checkpoint and memory as positions, those that exist."""
    on_stream = tail.own.id.epoch if tail.own else 0
    known = [memory] if memory is not None else []
    if checkpoint is not None:
        # mongodb-nats-connector writes no epoch: what it stores belongs to the epoch the stream is in.
        epoch = on_stream if checkpoint.epoch is None else checkpoint.epoch
        stored = Reached(
            checkpoint.token, epoch, checkpoint.sequence, checkpoint.stream_created, checkpoint.own,
            proved=checkpoint.native is True,
            # One that was put back from a backup may be from before a message out of turn.
            counted=checkpoint.counted and checkpoint.native is True,
        )  # fmt: skip
        known.insert(0, stored)
    return max([on_stream, *(one.epoch for one in known)]), known


def last_known(tail: Tail, checkpoint: Checkpoint | None, memory: Reached | None) -> Reached | None:
    """Return the later of checkpoint and memory; None where neither is of the last epoch that there is."""
    epoch, known = last_epoch(tail, checkpoint, memory)
    return max(
        (one for one in known if one.epoch == epoch), key=lambda one: (one.token, one.sequence or 0), default=None
    )


def known_until(checkpoint: Checkpoint | None, memory: Reached | None) -> int:
    """Return the sequence up to which nothing of ours on the stream can be news; 0 where that is not known."""
    return min((known.sequence or 0 for known in (checkpoint, memory) if known is not None), default=0)


def recreated(tail: Tail, known: Checkpoint | Reached) -> bool:
    """Whether the stream was deleted and recreated: what is known was said of an earlier one of the same name."""
    return known.stream_created is not None and known.stream_created != tail.created


def recreation(tail: Tail) -> str:
    """Say that it was, and what to do, in so few words that a list shows all of them."""
    second = f"{tail.created[:19]}Z"  # as NATS writes it: 2026-01-01T00:00:00.123456789Z
    return (
        f"the stream was deleted and recreated at {second}: its messages are gone; rewind the watcher to say where it "
        "continues"
    )


def news(tail: Tail, reached: Reached) -> Tail:
    """Return the stream's end without what it cannot tell: where some collections are ahead of the position, messages
    up to its sequence were published collection by collection, and the last of them says nothing of the others."""
    own = tail.own
    if own is None or not reached.ahead or own.sequence > (reached.sequence or 0):
        return tail
    return replace(tail, own=None)


def unseen(tail: Tail, reached: Reached | None) -> OwnMessage | None:
    """Return our last message as remembered, where its place has to be looked at since the stream's end is earlier.

    It may have expired, been consumed, or be hidden by a message of another epoch, and then it is as it should be;
    but where another message has its place, the stream lost its end, and another publisher went on.
    """
    own = reached.own if reached is not None and reached.stream_created == tail.created else None
    return None if own is None or _shows(tail, own) or tail.last_sequence < own.sequence else own


def last_own(tail: Tail, epoch: int, before: OwnMessage | None) -> OwnMessage | None:
    """Return our last message of the epoch: the stream's, or the one from `before` where the stream has no later."""
    if before is not None and not _shows(tail, before):
        return before
    return tail.own if tail.own is not None and tail.own.id.epoch == epoch else None


def check_searched(tail: Tail) -> None:
    """Refuse an end before which a message of ours may be hidden. Raises PositionUndecidable."""
    if tail.unsearched:
        raise PositionUndecidable(
            f"the watcher's subjects end in more than {tail.foreign - 1:,} messages of other publishers, so its own "
            "last one was not found; keep others from these subjects, and either purge their messages from the stream "
            "or rewind the watcher to say where it continues"
        )


def latest(checkpoint: Checkpoint | None, tail: Tail | None, memory: Reached | None = None) -> tuple[str, int] | None:
    """Return token and epoch of a watcher that does not run: the latest of the last epoch; None where it has none.

    The checkpoint is written after the acknowledgement, so that after a crash or a failure the stream knows more.
    """
    own = tail.own.id if tail is not None and tail.own is not None else MessageId("")
    known = [(own.epoch, own.position)]
    if checkpoint is not None:
        known.append((own.epoch if checkpoint.epoch is None else checkpoint.epoch, checkpoint.token))
    if memory is not None:
        known.append((memory.epoch, memory.token))
    epoch, token = max(known)
    return (token, epoch) if token else None


def next_epoch(checkpoint: Checkpoint | None, tail: Tail | None, now: float) -> int:
    """Return the epoch of a deliberate new start: later than any that was ever published in."""
    if tail is not None and tail.own is None and (checkpoint is None or checkpoint.epoch is None):
        return max(1, first_epoch(tail, now))
    stored = (checkpoint.epoch or 0) if checkpoint else 0
    on_stream = tail.own.id.epoch if tail is not None and tail.own is not None else 0
    return max(stored, on_stream) + 1


def first_epoch(tail: Tail, now: float) -> int:
    """Return the epoch of a watcher of which nothing is left: 0, unless the stream has held messages.

    Those may have been the watcher's in an earlier life, in any epoch, and the duplicate window may still know them.
    The time in seconds is an epoch that none of its lives can have reached by counting.
    """
    return int(now) if tail.last_sequence else 0


AHEAD_LOOKS = 7
"""A position in the future is believed to be one when it has been for so many looks: some six seconds."""


def check_scope(checkpoint: Checkpoint, *, scope: str, operation_time: int, looks: int = AHEAD_LOOKS) -> None:
    """Refuse a checkpoint that was made for another collection or deployment, or lies in this deployment's future.

    MongoDB itself takes such a token without an error. `operation_time` is the server's, in seconds since 1970; a
    mongos or a primary that was just elected may lag with it, hence `looks`, how often running it was behind by now.
    Raises ScopeMismatch, and SourceUnavailable while the future may be a passing one.
    """
    if checkpoint.scope is not None and checkpoint.scope != scope:
        raise ScopeMismatch(
            f"the checkpoint was made for {checkpoint.scope}, this watcher reads {scope}; give it a checkpoint "
            "collection of its own, or rewind the watcher to say where it continues"
        )
    if cluster_time(checkpoint.token).seconds > operation_time:
        if looks < AHEAD_LOOKS:
            raise SourceUnavailable("the checkpoint is ahead of MongoDB's operationTime; looking again")
        raise ScopeMismatch(
            "the checkpoint lies in the future of this MongoDB deployment, so it was made on another one; rewind "
            "the watcher to say where it continues"
        )


def lost_end(tail: Tail, reached: Reached, *, displaced: bool) -> bool:
    """Tell whether the stream lost messages of ours that it had acknowledged; `displaced` says that
    another message has the place of the `unseen` one."""
    if reached.own is None:
        return reached.sequence is not None and tail.last_sequence < reached.sequence
    return not _shows(tail, reached.own) and (displaced or tail.last_sequence < reached.own.sequence)


def _shows(tail: Tail, own: OwnMessage) -> bool:
    """Whether the stream's end proves that it has, or had, all of ours up to `own`.

    By positions, since what is published again after a loss may get greater sequences than what was lost.
    """
    end = tail.own.id if tail.own is not None else None
    return end is not None and end.epoch == own.id.epoch and end.position >= own.id.position
