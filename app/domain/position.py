"""Where to go on, and by what to fence: the exactly-once protocol as pure functions.

The stream is the ledger: the last message a watcher published says, by its id, how far the watcher came. The
checkpoint backs it up where the stream cannot tell (purged, expired, consumed), and memory where both were lost. Every
decision about a position is made here, from values; reading those values and acting on the result is the relay's part.
"""

from dataclasses import dataclass

from app.domain.errors import HistoryLost, PositionUndecidable, ScopeMismatch, Stale
from app.domain.tokens import MessageId, cluster_time
from app.domain.watcher import Route


@dataclass(frozen=True, slots=True)
class Reached:
    """A position that is acknowledged: everything up to `token` is on the stream, or was not to be published.

    `sequence` is the stream's last sequence when it was reached, `stream_created` the creation time that the server
    gives for the stream (it tells a stream from a later one of the same name). Either is None where it is not known,
    as in a checkpoint of the predecessor.
    """

    token: str
    epoch: int
    sequence: int | None = None
    stream_created: str | None = None


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A stored position. `epoch` is None where the predecessor wrote it; `updated_at` is in seconds since 1970.

    `route` is what it is a position of; None where that is not known, and taken for the watcher's own then.
    """

    token: str
    epoch: int | None = None
    sequence: int | None = None
    stream_created: str | None = None
    scope: str | None = None
    watcher: str | None = None
    route: Route | None = None
    updated_at: float | None = None


@dataclass(frozen=True, slots=True)
class OwnMessage:
    """The last message of ours on the stream: its sequence and its parsed id."""

    sequence: int
    id: MessageId


@dataclass(frozen=True, slots=True)
class Tail:
    """What the stream's end looks like, read from its leader.

    `last_sequence` is the stream's, `space_sequence` that of the last message in the watcher's subject space (0: none).
    `own` is the last message there with a token as id, `foreign` how many others without one came after it,
    and `unsearched` says that the search for an own one was given up before the beginning was reached.
    """

    created: str
    last_sequence: int
    space_sequence: int
    own: OwnMessage | None = None
    foreign: int = 0
    unsearched: bool = False

    def fence(self, *, exclusive: bool) -> int:
        """Return the last sequence that the next publish expects: the stream's own, or its subject space's."""
        return max(self.last_sequence, self.space_sequence) if exclusive else self.space_sequence


@dataclass(frozen=True, slots=True)
class GoOn:
    """Read on after `token`, publish in `epoch`, expecting `fence`."""

    token: str
    epoch: int
    fence: int


@dataclass(frozen=True, slots=True)
class StartAnew:
    """Nothing was ever reached: resolve the start position and store it before the first event is read."""

    epoch: int
    fence: int


def decide_opening(
    *,
    tail: Tail,
    checkpoint: Checkpoint | None,
    memory: Reached | None,
    exclusive: bool,
    new_start: bool = False,
    now: float,
) -> GoOn | StartAnew:
    """Decide where a watcher that opens goes on: the latest of stream, checkpoint and memory, within the last epoch.

    `new_start` is true for a watcher that was added with an explicit start and has not begun yet; `now` is in seconds
    since 1970. Raises HistoryLost where the stream was made anew, PositionUndecidable where nothing tells the position.
    """
    fence = tail.fence(exclusive=exclusive)
    on_stream = tail.own.id.epoch if tail.own else 0
    if checkpoint is None and memory is None and new_start:
        return StartAnew(next_epoch(None, tail, now) if tail.own else _first_epoch(tail, now), fence)

    stored = _as_reached(checkpoint, on_stream)
    epoch = max([on_stream, *(known.epoch for known in (stored, memory) if known is not None)])
    own = tail.own.id.position if tail.own is not None and on_stream == epoch else None
    latest = max(
        (known for known in (stored, memory) if known is not None and known.epoch == epoch),
        key=lambda known: (known.token, known.sequence or 0),
        default=None,
    )
    if latest is None:
        if tail.unsearched:
            raise PositionUndecidable(
                "the watcher's subjects end in messages of somebody else, and there is no checkpoint; set the token "
                "to say where to start"
            )
        return GoOn(own, epoch, fence) if own is not None else StartAnew(_first_epoch(tail, now), fence)
    if latest.stream_created is not None and latest.stream_created != tail.created:
        raise HistoryLost(
            f"the stream was deleted and made anew (created {tail.created}, before that {latest.stream_created}): "
            "what it held is gone; set the token to say where to go on"
        )
    if latest.sequence is not None and tail.last_sequence < latest.sequence:
        # The server lost the stream's end (it syncs lazily): what is not there any more has to be published again.
        if own is None:
            raise PositionUndecidable(
                f"the stream lost its end (last sequence {tail.last_sequence}, {latest.sequence} was acknowledged) "
                "and holds no message of this watcher; set the token to say where to go on"
            )
        return GoOn(own, epoch, fence)
    return GoOn(max(latest.token, own or ""), epoch, fence)


def decide_read_back(*, reached: Reached, tail: Tail, exclusive: bool) -> GoOn:
    """Decide where a writer stands after a publish whose outcome is unknown.

    Returns the position reached by now (whoever published it) and the next fence. What is waiting and not later than
    that position is on the stream already.
    Raises Stale where the watcher has to be opened again: an epoch later than ours, a stream made anew or cut short.
    """
    if tail.created != reached.stream_created:
        raise Stale("the stream was deleted and made anew")
    if reached.sequence is not None and tail.last_sequence < reached.sequence:
        raise Stale("the stream's end is behind what was acknowledged")
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
    own = tail.own.id if tail is not None and tail.own is not None else None
    stored = _as_reached(checkpoint, own.epoch if own is not None else 0)
    known = [(one.epoch, one.token) for one in (stored, memory) if one is not None]
    if own is not None:
        known.append((own.epoch, own.position))
    return max(known)[1] if known else None


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


def check_scope(checkpoint: Checkpoint, *, scope: str, operation_time: int) -> None:
    """Refuse a checkpoint that was made for another collection or deployment, or lies in this deployment's future.

    MongoDB itself takes such a token without an error. `operation_time` is the server's, in seconds since 1970.
    Raises ScopeMismatch.
    """
    if checkpoint.scope is not None and checkpoint.scope != scope:
        raise ScopeMismatch(
            f"the checkpoint was made for {checkpoint.scope}, this watcher reads {scope}; give it a checkpoint "
            "collection of its own, or set the token to say where to go on"
        )
    if cluster_time(checkpoint.token).seconds > operation_time:
        raise ScopeMismatch(
            "the checkpoint lies in the future of this MongoDB deployment, so it was made on another one; set the "
            "token to say where to go on"
        )


def _as_reached(checkpoint: Checkpoint | None, on_stream: int) -> Reached | None:
    if checkpoint is None:
        return None
    # The predecessor writes no epoch: what it stores belongs to the epoch the stream is in.
    epoch = on_stream if checkpoint.epoch is None else checkpoint.epoch
    return Reached(checkpoint.token, epoch, checkpoint.sequence, checkpoint.stream_created)
