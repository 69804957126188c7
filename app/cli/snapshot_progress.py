"""How far a watcher's snapshot is, on a terminal: one line that is written again and again, elsewhere a line now and
then. A service that does not answer for a while, because it starts again perhaps, is waited for: the snapshot goes on.
"""

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from rich.status import Status

from app.cli import FAILED, OK, CommandError, say, typed
from app.cli.http_client import Refused
from app.domain.plain import plain

LOOK_SECONDS = 1.0
LINE_SECONDS = 10.0
"""Between two lines where the output is no terminal."""
PATIENCE_SECONDS = 120.0
"""How long a service may not answer."""


def words(snapshot: Mapping[str, Any]) -> str:
    """Say how far it is, in a line."""
    said = f"{snapshot['documents']:,}"
    if snapshot["estimated_total"] is not None:
        said += f" of about {snapshot['estimated_total']:,}"
    said += " documents"
    if snapshot["state"] != "running":
        return f"{snapshot['state']}, {said}" + (f": {snapshot['reason']}" if snapshot["reason"] else "")
    if snapshot["waits"]:
        return f"{said}; it waits: {snapshot['waits']}"
    if snapshot["rows_per_second"]:
        said += f", {snapshot['rows_per_second']:,.0f} a second"
    if snapshot["estimated_end"]:
        left = (datetime.fromisoformat(snapshot["estimated_end"]) - datetime.now(UTC)).total_seconds()
        said += f", done in about {max(0, round(left))} s"
    return said


def short(snapshot: Mapping[str, Any] | None) -> str:
    """Say it in a word or two, for a table; a dash where there is none."""
    if snapshot is None:
        return "-"
    if snapshot["state"] != "running":
        return str(snapshot["state"])
    if snapshot["waits"]:
        return "waits"
    total = snapshot["estimated_total"]
    return f"{min(1, snapshot['documents'] / total):.0%}" if total else f"{snapshot['documents']:,}"


def follow(name: str, run: str, ask: Callable[[], Mapping[str, Any]]) -> int:
    """Show how far a run is until it ends, and return the exit code. `ask` gets the watcher's status.

    Raises CommandError where the service does not answer any more, or the watcher is gone."""
    line = _Line()
    silent_since: float | None = None
    try:
        while True:
            try:
                snapshot = ask()["snapshot"]
                silent_since = None
            except CommandError as error:
                if isinstance(error, Refused) and error.status != 503:
                    raise
                silent_since = time.monotonic() if silent_since is None else silent_since
                if time.monotonic() - silent_since > PATIENCE_SECONDS:
                    raise
                line.show(f"{name}: the service does not answer; waiting for it")
            else:
                if snapshot is None or snapshot["run"] != run:
                    raise CommandError(f"the snapshot {run} of {name} is not the last one any more")
                if snapshot["state"] != "running":
                    line.leave()
                    say(f"{name}: {words(snapshot)}")
                    return OK if snapshot["state"] == "done" else FAILED
                line.show(f"{name}: {words(snapshot)}")
            time.sleep(LOOK_SECONDS)
    finally:
        line.leave()


class _Line:
    """On a terminal one line, with a sign that it is alive."""

    def __init__(self) -> None:
        self._console = typed.console()
        self._shown: Status | None = None
        self._said_at = 0.0

    def show(self, text: str) -> None:
        if self._console.is_terminal:
            if self._shown is None:
                self._shown = self._console.status(plain(text))
                self._shown.start()
            self._shown.update(plain(text))
        elif time.monotonic() - self._said_at >= LINE_SECONDS:
            self._said_at = time.monotonic()
            say(text)

    def leave(self) -> None:
        """Take the line away: what comes next has it."""
        if self._shown is not None:
            self._shown.stop()
            self._shown = None
