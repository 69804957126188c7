"""How far a watcher is behind, from what MongoDB says of itself.

Both ends of the difference come from one reply of one server. So different clocks, or an idle collection, cannot show a
lag that does not exist.
"""

from dataclasses import dataclass

from app.domain.tokens import cluster_time


def lag_seconds(operation_time: int, position: str) -> float:
    """Return the seconds between the server's operationTime and a reply's position, never below zero."""
    return float(max(0, operation_time - cluster_time(position).seconds))


def headroom_seconds(position: str, oplog_first: int) -> float:
    """Return how many seconds of oplog lie before `position`; history is lost where this reaches zero."""
    return float(cluster_time(position).seconds - oplog_first)


@dataclass(frozen=True, slots=True)
class Oplog:
    """What MongoDB keeps of its history: `first` is the second of the first entry, `full` whether old entries give way
    to new ones already. Until then a short history is a young one, and nothing is about to be lost. `size` is what it
    holds and `most` what it may hold, in bytes; 0 where that is not known."""

    first: int
    full: bool
    size: int = 0
    most: int = 0


def running_out(headroom: float, oplog: Oplog | None, least: float) -> bool:
    """Return whether less than `least` seconds are left before the position falls out of the oplog."""
    return oplog is not None and oplog.full and headroom < least
