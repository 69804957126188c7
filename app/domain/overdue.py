"""Since when a watcher makes no progress: changes are read and not published, or errors interrupt it again and again.

A state does not tell. It is RUNNING while an acknowledgement is waited for, RETRYING for a moment after each error, and
RUNNING again with the next opening, however often that has led to nothing. What counts here is progress: a message
acknowledged, or a look at the change stream that found nothing to publish. A watcher with a long backlog makes progress
all the time, and one that has nothing to do cannot be late. `control/health.py` says DOWN where something is overdue.
"""

from dataclasses import dataclass

PATIENCE_SECONDS = 15.0
"""How long something may wait without any progress; longer than a failover takes."""


@dataclass(slots=True)
class Overdue:
    """What one watcher is late with, over all its openings. Times are seconds since 1970."""

    well_at: float = 0.0
    """When the watcher last did what it should."""
    _unpublished_since: float | None = None
    _interrupted_since: float | None = None
    _interrupted_at: float = 0.0

    def changes_read(self, now: float) -> None:
        """Changes were read that are to be published."""
        if self._unpublished_since is None:
            self._unpublished_since = now

    def interrupted(self, now: float) -> None:
        """An error ended an attempt."""
        self._interrupted_at = now
        if self._interrupted_since is None:
            self._interrupted_since = now

    def progressed(self, now: float) -> None:
        """Something was published, or found to be on the stream; more may wait."""
        self.well_at, self._interrupted_since = now, None
        if self._unpublished_since is not None:
            self._unpublished_since = now

    def nothing_waits(self, now: float) -> None:
        """Everything that there is has been read and published."""
        self.well_at, self._interrupted_since, self._unpublished_since = now, None, None

    def forget(self) -> None:
        """The watcher is to do nothing: it is paused, or another instance publishes."""
        self._interrupted_since = self._unpublished_since = None

    def problem(self, now: float) -> str | None:
        """Return what is overdue, as a sentence without its subject; None where nothing is."""
        waiting = 0.0 if self._unpublished_since is None else now - self._unpublished_since
        if waiting > PATIENCE_SECONDS:
            return f"has read changes and published nothing for {waiting:.0f} seconds"
        failing = 0.0 if self._interrupted_since is None else now - self._interrupted_since
        # After one interruption a quiet stream may take long to bring anything: that is no second one.
        if failing > PATIENCE_SECONDS and now - self._interrupted_at <= PATIENCE_SECONDS:
            return f"has been interrupted again and again for {failing:.0f} seconds, without any progress"
        return None
