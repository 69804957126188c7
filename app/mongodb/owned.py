"""Which documents of a collection are positions, told from each document alone.

A collection of positions is named by the user, so it may be one with the user's own documents. Changewire writes and
deletes only what it made itself, or what mongodb-nats-connector provably made; so every command that may change a
document has one of these filters, and the server decides document by document. What matches neither is never touched.

- Changewire's own: an ObjectId, a resume token as `value`, and beside it the token's cluster time, an epoch, and the
  place on a stream. A later version may add fields, so others do not matter.
- mongodb-nats-connector's: an ObjectId and a resume token as `value`, and nothing else (`doubt` and `counted` are what
  Changewire adds while it has not moved the position yet).
"""

import re
from collections.abc import Mapping
from typing import Any, Final

_TOKEN: Final[Mapping[str, Any]] = {"$regex": r"^82[0-9A-Fa-f]{16,}\z", "$not": {"$type": "array"}}
"""A filter on an array would look at its elements; `$` would let a line break pass."""
_NAMES: Final[Mapping[str, Any]] = {"$map": {"input": {"$objectToArray": "$$ROOT"}, "in": "$$this.k"}}
_CONNECTORS: Final[Mapping[str, Any]] = {"$expr": {"$setIsSubset": [_NAMES, ["_id", "value", "doubt", "counted"]]}}
_OWN: Final[Mapping[str, Any]] = {
    "clusterTime": {"$type": "timestamp"},
    "epoch": {"$type": ["int", "long"]},
    "sequence": {"$exists": True},
    "streamCreated": {"$exists": True},
}
POSITION: Final[Mapping[str, Any]] = {"_id": {"$type": "objectId"}, "value": _TOKEN, "$or": [_OWN, _CONNECTORS]}
"""Matches what is a position, Changewire's or mongodb-nats-connector's, whichever watcher it is of."""
FOREIGN: Final[Mapping[str, Any]] = {"$nor": [POSITION]}
"""Matches everything else."""
INSTANCE: Final[Mapping[str, Any]] = {
    "_id": {"$type": "string"},
    "$expr": {"$and": [{"$eq": [{"$type": "$seen"}, "date"]}, {"$setEquals": [_NAMES, ["_id", "applied", "seen"]]}]},
    "applied": {"$type": ["int", "long"]},
}
"""Matches what an instance says of itself in the registry."""


def position_of(namespace: str, registry: str) -> Mapping[str, Any]:
    """Return what matches the positions of a watcher of this collection, from this registry.

    A position says its scope, `<replica set>/<namespace>`, and its registry; one that does not say is the watcher's.
    """
    scope = re.compile(f"/{re.escape(namespace)}\\Z")
    return {**POSITION, "scope": {"$in": [None, scope]}, "registry": {"$in": [None, registry]}}
