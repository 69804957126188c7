"""How many connections this process needs, and how many it can have.

Each change stream holds one connection and one thread while it waits for events. With fewer connections than that a
watcher waits for another one's, and so do the probe and the checkpoints: the service would call MongoDB down. So
`maxPoolSize` in MONGO_URI is exceeded where it is too small, and this module says so (decision 0051).
"""

import os
from typing import Final, NamedTuple
from urllib.parse import parse_qsl

import structlog

log = structlog.get_logger(__name__)

# Read by motor when it is first imported. Threads come on demand; one per watcher that waits, so well above the
# watchers of one process.
os.environ.setdefault("MOTOR_MAX_WORKERS", "512")
MOST: Final = int(os.environ["MOTOR_MAX_WORKERS"])
"""The threads of this process for MongoDB, and so the connections that can be of use at once."""
SPARE: Final = 10
"""Connections beside those of the change streams: for the probe, the registry, checkpoints, and checks of watchers."""


class Shortage(NamedTuple):
    """Too few connections for the change streams: what is so, and what to do about it."""

    found: str
    advice: str


def asked_for(uri: str) -> int | None:
    """Return the `maxPoolSize` of a connection string; None where it names none, or no limit."""
    named = {name.lower(): value for name, value in parse_qsl(uri.partition("?")[2])}
    size = named.get("maxpoolsize", "")
    return int(size) if size.isdecimal() and int(size) else None


def shortage(asked: int | None, streams: int) -> Shortage | None:
    """Return what so many change streams of one process are short of; None where there is enough. `asked` is the size
    that MONGO_URI asks for."""
    needed = streams + SPARE
    if needed > MOST:
        return Shortage(
            f"{streams} change streams of one instance need {needed} threads and connections, and there are {MOST}",
            "let watchers share change streams, add an instance, or set MOTOR_MAX_WORKERS to more",
        )
    if asked is not None and asked < needed:
        plural = "s" * (streams != 1)
        return Shortage(
            f"maxPoolSize={asked} in MONGO_URI is less than the {needed} connections that {streams} change "
            f"stream{plural} and the service need; Changewire opens as many as it needs",
            f"set maxPoolSize to {needed} or more, or leave it out",
        )
    return None


class PoolWatch:
    """Says that there are too few connections: once, and again when twice as many are needed."""

    def __init__(self, asked: int | None) -> None:
        self._asked = asked
        self._said = 0

    def look(self, streams: int) -> None:
        """So many change streams are open."""
        found = shortage(self._asked, streams) if streams >= 2 * self._said else None
        if found is not None:
            self._said = streams
            log.warning("connections_short", problem=found.found, hint=found.advice)
