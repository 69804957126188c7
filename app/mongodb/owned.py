"""Which documents of a collection are positions, told from each document alone.

A collection of positions is named by the user, so it may be one with the user's own documents. Changewire writes and
deletes only what it made itself, or what mongodb-nats-connector provably made; so every command that may change a
document has one of these filters, and the server decides document by document. What matches neither is never touched.

- Changewire's own: an ObjectId, a resume token as `value`, and beside it the token's cluster time, an epoch, and the
  place on a stream. A later version may add fields, so others do not matter.
- Those of all watchers together, in the state database: the same fields, with the watcher's name in place of an
  ObjectId.
- mongodb-nats-connector's: an ObjectId and a resume token as `value`, and nothing else (`doubt` and `counted` are what
  Changewire adds while it has not moved the position yet).
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from bson.timestamp import Timestamp

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
_NAMED_TOKEN: Final[Mapping[str, Any]] = {"$gte": "82", "$lt": "83"}
"""Text in these bounds, for what is looked at for many watchers at once: no expression to compile for each."""
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
    return {**POSITION, "scope": {"$in": [None, scope_of(namespace)]}, "registry": {"$in": [None, registry]}}


def scope_of(namespace: str) -> re.Pattern[str]:
    """Return what matches the scopes of this collection, on whichever replica set."""
    return re.compile(f"/{re.escape(namespace)}\\Z")


def position_named(name: str) -> dict[str, Any]:
    """Return what matches the position kept under a watcher's name, of whichever collection it is."""
    return {"_id": name, "value": _NAMED_TOKEN, **_OWN}


def is_named_position(document: Mapping[str, Any]) -> bool:
    """Whether `position_named` matches a document that has the watcher's name as its `_id`."""
    value = document.get("value")
    return (
        isinstance(value, str)
        and "82" <= value < "83"
        and isinstance(document.get("clusterTime"), Timestamp)
        and isinstance(document.get("epoch"), int)
        and "sequence" in document
        and "streamCreated" in document
    )


def is_of_namespace(document: Mapping[str, Any], namespace: str) -> bool:
    """Whether a position is of a watcher that reads this; one that does not say is."""
    scope = document.get("scope")
    return scope is None or str(scope).partition("/")[2] == namespace
