"""What MongoDB says of a collection: `listCollections` of one name. And which collections of a database are views.

Pure: the commands, and what their replies hold.
"""

from collections.abc import Mapping
from typing import Any

from app.domain.tokens import ClusterTime


def described_by(collection: str) -> dict[str, Any]:
    """Build the command whose reply `description` reads."""
    return {"listCollections": 1, "filter": {"name": collection}}


def description(reply: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return what is said of the collection; None where it does not exist."""
    found = reply["cursor"]["firstBatch"]
    return found[0] if found else None


def uuid_in(described: Mapping[str, Any] | None) -> str | None:
    """Return the UUID of a collection, as `description` returns it: 32 lower-case hex digits."""
    uuid = (described or {}).get("info", {}).get("uuid")
    return None if uuid is None else str(uuid.hex())


def views_described() -> dict[str, Any]:
    """Build the command whose reply `names_and_time_in` reads: the views and time-series collections of a database.

    Names and types alone are open to every account that may read something there."""
    return {
        "listCollections": 1,
        "nameOnly": True,
        "authorizedCollections": True,
        "filter": {"type": {"$in": ["view", "timeseries"]}},
    }


def names_and_time_in(reply: Mapping[str, Any]) -> tuple[frozenset[str], ClusterTime]:
    """Return the names that are listed, and the cluster time of the answer."""
    return frozenset(str(each["name"]) for each in reply["cursor"]["firstBatch"]), time_in(reply)


def time_in(reply: Mapping[str, Any]) -> ClusterTime:
    """Return the cluster time of an answer: nothing that was read before is later."""
    at = reply["operationTime"]
    return ClusterTime(at.time, at.inc)
