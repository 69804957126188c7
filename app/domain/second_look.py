"""Whether a permanent error is believed: a server in trouble may say "never" and take it back a little later.

A user is replaced, a configuration is reloaded, an election is held, and what is asked meanwhile is answered with a
code that means "never". So the first such answer counts as a passing error. The watcher is FAILED only where the same
kind of error comes again `confirm_seconds` later, and nothing else came in between: no other error, no progress.

Which codes may mean "never" at all: `mongodb/codes.py` and `jetstream/errors.py`. How long to wait in between:
`backoff.py`.
"""

from app.domain.errors import PermanentError


class SecondLook:
    """The permanent error that one watcher's task was told and does not believe yet. Times are seconds since 1970."""

    def __init__(self) -> None:
        self._kind: type[PermanentError] | None = None
        self._since = 0.0

    def believes(self, error: PermanentError, *, now: float, well_at: float) -> bool:
        """Whether an error has come again for long enough; `well_at` is when the watcher last did what it should."""
        if type(error) is not self._kind or well_at > self._since:
            self._kind, self._since = type(error), now
        return now - self._since >= error.confirm_seconds

    def due(self, now: float) -> float | None:
        """Return the seconds until the next look decides; None where no error waits for one."""
        return None if self._kind is None else max(0.0, self._since + self._kind.confirm_seconds - now)

    def forget(self) -> None:
        """Another error came, or an answer: the permanent one has to come twice again."""
        self._kind = None
