"""How far a watcher is behind, from what MongoDB says of itself.

Both ends of the difference come from one reply of one server, so neither the clocks of two machines nor an idle
collection can make a lag that is not there.
"""

from app.domain.tokens import cluster_time


def lag_seconds(operation_time: int, position: str) -> float:
    """Return the seconds between the server's operationTime and a reply's position, never below zero."""
    return float(max(0, operation_time - cluster_time(position).seconds))


def headroom_seconds(position: str, oplog_first: int) -> float:
    """Return how many seconds of oplog lie before `position`; history is lost where this reaches zero."""
    return float(cluster_time(position).seconds - oplog_first)
