"""Changes that are published already, though their messages are gone: how many the stream counts, and which they are.

On a stream that is the watcher's alone each sequence after a position is one change after it. So where messages were
consumed, purged or expired before anybody looked, the stream's last sequence still tells how many changes they were.
A wrong count would lose changes. So it is made only where it is certain, and it is given up, or refused, as soon as it
shows to be wrong.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from app.domain.errors import PositionUndecidable
from app.domain.events import Change
from app.domain.position import Checkpoint, Reached, Tail, last_epoch, last_known
from app.domain.tokens import cluster_time, token_of

SLACK_SECONDS = 30
"""How far MongoDB's clock, as it shows in a reply, may lag behind the moment in which a message was published."""


@dataclass(frozen=True, slots=True)
class Count:
    """What an opening counts: the first `gone` changes after its position are published already.

    `certain` says that messages after the position can be counted from now on, `withdrawn` that the stored position
    promises so and has to be corrected before anything else is published.
    """

    gone: int
    certain: bool
    withdrawn: bool


def count_at_opening(tail: Tail, checkpoint: Checkpoint | None, memory: Reached | None, *, goes_on: bool) -> Count:
    """Count the messages that are gone; `goes_on` says that the stream still is as checkpoint and memory know it."""
    _, known = last_epoch(tail, checkpoint, memory)
    latest = last_known(tail, checkpoint, memory)
    gone = 0
    if goes_on and latest is not None and all(one.counted for one in known):
        gone = count_gone(tail, latest)
    certain = tail.counts and not tail.foreign and all(one.counted for one in (checkpoint, memory) if one is not None)
    promised = checkpoint is not None and checkpoint.counted and checkpoint.sequence is not None
    return Count(gone, certain, withdrawn=promised and not certain)


def count_gone(tail: Tail, reached: Reached) -> int:
    """Count the messages that were published after a position, or after our last message that the stream still shows.

    Each of them is one change. 0 where the count is not certain: the stream is shared, feeds on others, or ends in
    messages of others, or messages of others were seen on it before.
    """
    if not tail.counts or tail.foreign or not reached.counted:
        return 0
    base, own = reached.sequence, tail.own
    if own is not None and own.id.epoch == reached.epoch:
        # Seen, whatever its position: a replay by a writer that is not as far says less than the position.
        base = max(base or 0, own.sequence)
    return max(0, tail.end - base) if base is not None else 0


def published_until(operation_time: int, tail: Tail) -> int:
    """Return the moment after which no change is that the stream holds or held, in seconds since 1970.

    `operation_time` is MongoDB's, asked for after the stream's end was read."""
    return operation_time - int(tail.quiet) + SLACK_SECONDS


@dataclass(slots=True)
class Counted:
    """The next `left` changes are published, and none of them is later than `until` (in seconds since 1970)."""

    left: int = 0
    until: int = 0
    since: Reached | None = None
    """Where the first one was passed over."""

    def pass_over(self, waiting: Sequence[Change], reached: Reached) -> tuple[int, Reached]:
        """Return how many of the changes that wait are published, up to the next dead letter, and the position then."""
        passed = 0
        for change in waiting[: self.left]:
            if change.letter is not None or cluster_time(change.token).seconds > self.until:
                break
            passed += 1
        if not passed:
            return 0, reached
        self.since = self.since or reached
        self.left -= passed
        sequence = None if reached.sequence is None else reached.sequence + passed
        return passed, replace(reached, token=waiting[passed - 1].token, sequence=sequence)

    def overdue(self, position: str) -> bool:
        """Whether all that the count tells of should have come before this position."""
        return self.left > 0 and cluster_time(position).seconds > self.until

    def give_up(self, reached: Reached) -> Reached:
        """Return the position without what is left of the count: the messages were not the watcher's."""
        left, self.left = self.left, 0
        sequence = None if reached.sequence is None else reached.sequence + left
        return replace(reached, sequence=sequence, counted=False)

    def refusal(self, since: Reached, space: str) -> PositionUndecidable:
        """Say that the changes passed over may not be published."""
        return PositionUndecidable(
            f"the stream counts {self.left} more messages after the last known position than MongoDB has changes: "
            f"another program has published to {space} and its messages were consumed or purged, or the stream was "
            f"purged beyond its end. Changes after {token_of(since.token)} may have been taken for published; rewind "
            "the watcher to say where it continues, and keep others from these subjects"
        )
