"""What every watcher of a process suffers from at once: a server that does not answer."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class Outage:
    """Which servers do not answer, why, and since when (seconds since 1970)."""

    _down: dict[str, tuple[float, str]] = field(default_factory=dict, init=False)

    def seen(self, server: str, why: str | None, now: float) -> None:
        """A server was asked; `why` says why it does not answer, None that it does."""
        if why is None:
            self._down.pop(server, None)
        else:
            self._down[server] = (self._down.get(server, (now, ""))[0], why)

    @property
    def now(self) -> tuple[float, str] | None:
        """Since when there is one, and a sentence about it; None where there is none."""
        return min(self._down.values(), default=None)
