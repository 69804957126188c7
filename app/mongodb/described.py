"""What MongoDB says of a collection: `listCollections` of one name.

Pure: the command, and what its reply holds.
"""

from collections.abc import Mapping
from typing import Any


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
