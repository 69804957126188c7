"""Where to go on, and by what to fence: the exactly-once protocol as pure functions.

The stream is the ledger: the last message a watcher published says, by its id, how far the watcher came. The
checkpoint backs it up where the stream cannot tell (purged, expired, consumed), and memory where both were lost. Every
decision about a position is made here, from values; reading those values and acting on the result is the capture's
part.
"""

from dataclasses import dataclass, field

from app.domain.errors import HistoryLost, PositionUndecidable, ScopeMismatch, SourceUnavailable, Stale
from app.domain.tokens import MessageId, cluster_time
from app.domain.watcher import OnHistoryLost, Route


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
    as in a checkpoint of the predecessor. `own` is our last message of that epoch up to there, None where there was
    none yet or it is not known: only where it was shows, on a stream that others publish to, whether the end was lost.

    `proven` says that the position is known to be one of this deployment, `counted` that every message on the stream
    after `sequence` is a change of this watcher after `token`, as long as the stream is the watcher's alone.
    """

    token: str
    epoch: int
    sequence: int | None = None
    stream_created: str | None = None
    own: OwnMessage | None = None
    proven: bool = True
    counted: bool = True


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A stored position. `epoch` is None where the predecessor wrote it; `updated_at` is in seconds since 1970.

    `route` is what it is a position of; None where that is not known, and taken for the watcher's own then.
    `doubts` are messages of ours that may not be where they should be: until they are looked at, nothing tells whether
    all up to `token` is on the stream. `counted` is that of `Reached`.
    `native` says whether it was written to the very collection that it was read from: False where it was copied there,
    None where it does not tell, as those of mongodb-nats-connector.
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
    doubts: tuple[OwnMessage, ...] = ()
    counted: bool = True
    native: bool | None = field(default=True, compare=False)


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


@dataclass(frozen=True, slots=True)
class GoOn:
    """Read on after `token`, publish in `epoch`, expecting `fence`.

    The first `gone` changes after the token are published already; their messages were consumed, purged or expired.
    """

    token: str
    epoch: int
    fence: int
    gone: int = 0


@dataclass(frozen=True, slots=True)
class StartAnew:
    """Nothing was ever reached: resolve the start position and store it before the first event is read."""

    epoch: int
    fence: int


@dataclass(frozen=True, slots=True)
class Refill:
    """The stream that had all up to `token` is gone: say so on the new one, expecting `fence`, and go on in `epoch`."""

    token: str
    epoch: int
    fence: int


def last_known(tail: Tail, checkpoint: Checkpoint | None, memory: Reached | None) -> Reached | None:
    """Return the later of checkpoint and memory; None where neither is of the last epoch that there is."""
    epoch, known = _last_epoch(tail, checkpoint, memory)
    return max(
        (one for one in known if one.epoch == epoch), key=lambda one: (one.token, one.sequence or 0), default=None
    )


def known_until(checkpoint: Checkpoint | None, memory: Reached | None) -> int:
    """Return the sequence up to which nothing of ours on the stream can be news; 0 where that is not known."""
    return min((known.sequence or 0 for known in (checkpoint, memory) if known is not None), default=0)


def made_anew(tail: Tail, known: Checkpoint | Reached) -> bool:
    """Whether what is known of the stream was said of an earlier one of the same name."""
    return known.stream_created is not None and known.stream_created != tail.created


def unseen(tail: Tail, reached: Reached | None) -> OwnMessage | None:
    """Return our last message as remembered, where its place has to be looked at since the stream's end is earlier.

    It may have expired, been consumed, or be hidden by a message of another epoch, and then it is as it should be;
    but where another message has its place, the stream lost its end and somebody else has published since.
    """
    own = reached.own if reached is not None and reached.stream_created == tail.created else None
    return None if own is None or _shows(tail, own) or tail.last_sequence < own.sequence else own


def last_own(tail: Tail, epoch: int, before: OwnMessage | None) -> OwnMessage | None:
    """Return our last message of the epoch: the stream's, or the one from `before` where the stream has no later."""
    if before is not None and not _shows(tail, before):
        return before
    return tail.own if tail.own is not None and tail.own.id.epoch == epoch else None


def decide_opening(
    *,
    tail: Tail,
    checkpoint: Checkpoint | None,
    memory: Reached | None,
    exclusive: bool,
    new_start: bool = False,
    displaced: bool = False,
    on_history_lost: OnHistoryLost = "fail",
    at_latest: bool = False,
    now: float,
) -> GoOn | StartAnew | Refill:
    """Decide where a watcher that opens goes on: the latest of stream, checkpoint and memory, within the last epoch.

    `new_start` is true for a watcher that was added with an explicit start and has not begun yet, `displaced` where
    another message has the place of the `unseen` one, `at_latest` for one that begins at the present; `now` is in
    seconds since 1970.
    A stream that was made anew begins a new epoch, where `on_history_lost` says that it may: its messages tell how far
    the watcher came then, though the checkpoint still be that of the stream before.
    Raises HistoryLost where it may not, PositionUndecidable where nothing tells the position.
    """
    fence = tail.fence(exclusive=exclusive)
    epoch, known = _last_epoch(tail, checkpoint, memory)
    first = 0 if at_latest else _first_epoch(tail, now)  # what happens from now on cannot have been published before
    if not known and new_start:
        return StartAnew(epoch + 1 if tail.own else first, fence)

    own = tail.own.id.position if tail.own is not None and tail.own.id.epoch == epoch else None
    latest = last_known(tail, checkpoint, memory)
    moved = checkpoint is not None and checkpoint.epoch is not None and checkpoint.sequence is None
    if not moved:  # where somebody has said where to go on, before all that could be found, nothing need be
        check_searched(tail)
    if latest is None:
        return GoOn(own, epoch, fence) if own is not None else StartAnew(first, fence)
    if made_anew(tail, latest):
        if on_history_lost != "fail":
            return Refill(max(latest.token, own or ""), epoch + 1, fence)
        raise HistoryLost(
            f"the stream was deleted and made anew (created {tail.created}, before that {latest.stream_created}): "
            "what it held is gone; set the token to say where to go on, or on_history_lost to latest or earliest"
        )
    if lost_end(tail, latest, displaced=displaced):
        # The server lost the stream's end (it syncs lazily): what is not there any more has to be published again.
        if own is None:
            raise PositionUndecidable(
                f"the stream lost its end (last sequence {tail.last_sequence}, "
                f"{latest.own.sequence if latest.own else latest.sequence} was acknowledged) "
                "and holds no message of this watcher; set the token to say where to go on"
            )
        return GoOn(own, epoch, fence)
    gone = count_gone(tail, latest) if all(one.counted for one in known) else 0
    return GoOn(max(latest.token, own or ""), epoch, fence, gone)


def count_gone(tail: Tail, reached: Reached) -> int:
    """Count the messages that were published after a position, or after our last message that the stream still shows.

    Each of them is one change. 0 where the count is not certain: the stream is shared, feeds on others, or ends in
    messages of others, or somebody else's were seen on it before.
    """
    if not tail.counts or tail.foreign or not reached.counted:
        return 0
    base, own = reached.sequence, tail.own
    if own is not None and own.id.epoch == reached.epoch:
        # Seen, whatever its position: a replay by a writer that is not as far says less than the position.
        base = max(base or 0, own.sequence)
    return max(0, tail.end - base) if base is not None else 0


def check_searched(tail: Tail) -> None:
    """Refuse an end behind which a message of ours may be hidden. Raises PositionUndecidable."""
    if tail.unsearched:
        raise PositionUndecidable(
            f"the watcher's subjects end in more than {tail.foreign - 1:,} messages of somebody else, so that its own "
            "last one was not found; keep others from these subjects, and either purge their messages from the stream "
            "or set the token to say where to go on"
        )


def decide_read_back(*, reached: Reached, tail: Tail, exclusive: bool, displaced: bool = False) -> GoOn:
    """Decide where a writer stands after a publish whose outcome is unknown; `displaced` as for an opening.

    Returns the position reached by now (whoever published it) and the next fence. What is waiting and not later than
    that position is on the stream already.
    Raises Stale where the watcher has to be opened again: an epoch later than ours, a stream made anew or cut short;
    PositionUndecidable where too many messages of others came since.
    """
    if tail.created != reached.stream_created:
        raise Stale("the stream was deleted and made anew")
    if lost_end(tail, reached, displaced=displaced):
        raise Stale("the stream's end is behind what was acknowledged")
    check_searched(tail)
    own = tail.own
    if own is not None and own.id.epoch > reached.epoch:
        raise Stale(f"another instance publishes in epoch {own.id.epoch}")
    token = reached.token
    if own is not None and own.id.epoch == reached.epoch:
        token = max(token, own.id.position)
    return GoOn(token, reached.epoch, tail.fence(exclusive=exclusive))


def latest(checkpoint: Checkpoint | None, tail: Tail | None, memory: Reached | None = None) -> str | None:
    """Return the position of a watcher that stands still: the latest of all in the last epoch; None where it has none.

    The checkpoint is written behind, so that after a crash or a failure the stream knows more.
    """
    own = tail.own.id if tail is not None and tail.own is not None else MessageId("")
    known = [(own.epoch, own.position)]
    if checkpoint is not None:
        known.append((own.epoch if checkpoint.epoch is None else checkpoint.epoch, checkpoint.token))
    if memory is not None:
        known.append((memory.epoch, memory.token))
    return max(known)[1] or None


def next_epoch(checkpoint: Checkpoint | None, tail: Tail | None, now: float) -> int:
    """Return the epoch of a deliberate new start: later than any that was ever published in."""
    if tail is not None and tail.own is None and (checkpoint is None or checkpoint.epoch is None):
        return max(1, _first_epoch(tail, now))
    stored = (checkpoint.epoch or 0) if checkpoint else 0
    on_stream = tail.own.id.epoch if tail is not None and tail.own is not None else 0
    return max(stored, on_stream) + 1


def _first_epoch(tail: Tail, now: float) -> int:
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
            "collection of its own, or set the token to say where to go on"
        )
    if cluster_time(checkpoint.token).seconds > operation_time:
        if looks < AHEAD_LOOKS:
            raise SourceUnavailable("the checkpoint is ahead of MongoDB's operationTime; looking again")
        raise ScopeMismatch(
            "the checkpoint lies in the future of this MongoDB deployment, so it was made on another one; set the "
            "token to say where to go on"
        )


def lost_end(tail: Tail, reached: Reached, *, displaced: bool) -> bool:
    """Tell whether the stream lost messages of ours that it had acknowledged; `displaced` as for an opening."""
    if reached.own is None:
        return reached.sequence is not None and tail.last_sequence < reached.sequence
    return not _shows(tail, reached.own) and (displaced or tail.last_sequence < reached.own.sequence)


def _shows(tail: Tail, own: OwnMessage) -> bool:
    """Whether the stream's end proves that it has, or had, all of ours up to `own`.

    By positions, since what is published again after a loss may get greater sequences than what was lost.
    """
    end = tail.own.id if tail.own is not None else None
    return end is not None and end.epoch == own.id.epoch and end.position >= own.id.position


def _last_epoch(tail: Tail, checkpoint: Checkpoint | None, memory: Reached | None) -> tuple[int, list[Reached]]:
    on_stream = tail.own.id.epoch if tail.own else 0
    known = [memory] if memory is not None else []
    if checkpoint is not None:
        # The predecessor writes no epoch: what it stores belongs to the epoch the stream is in.
        epoch = on_stream if checkpoint.epoch is None else checkpoint.epoch
        stored = Reached(
            checkpoint.token, epoch, checkpoint.sequence, checkpoint.stream_created, checkpoint.own,
            proven=checkpoint.native is True,
            # One that was put back from a backup may be from before a message out of turn.
            counted=checkpoint.counted and checkpoint.native is True,
        )  # fmt: skip
        known.insert(0, stored)
    return max([on_stream, *(one.epoch for one in known)]), known
