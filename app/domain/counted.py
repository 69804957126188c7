"""Changes that are already published, as the stream's sequence counts them, and when the count was wrong.

A wrong count would lose changes, so it is given up, or refused, as soon as it shows. `position.count_gone` counts.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from app.domain.errors import PositionUndecidable
from app.domain.events import Change
from app.domain.position import Reached
from app.domain.tokens import cluster_time


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
            f"somebody else has published to {space} and the messages were consumed or purged, or the stream was "
            f"purged beyond its end. Changes after {since.token} may have been taken for published; set the token to "
            "say where to go on, and keep others from these subjects"
        )
