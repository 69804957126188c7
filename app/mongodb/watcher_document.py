"""A watcher as a document. The pipeline is stored as JSON text, since its keys begin with $ and hold dots.

Where no checkpoint place is named, `IN_BULK` is stored: a version that knows no such place must not take it for its own
default, in which no position is. It finds the document unreadable instead, and does not run the watcher.

Of a watcher that publishes a snapshot alone, the operations are kept beside an empty list: a version that
knows no snapshot refuses it, and does not publish changes.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

from app.domain.lifecycle import Desired
from app.domain.watcher import StoredWatcher, from_document, to_document

IN_BULK: Final = "state"


def restored(document: Mapping[str, Any], pipeline: Any) -> StoredWatcher:
    """Return the watcher that a document tells, with its pipeline, which was parsed before.

    Raises AttributeError, KeyError, TypeError or ValueError for what this version does not know."""
    plain = dict(document["watcher"])
    plain["source"] = plain["source"] | {"pipeline": pipeline}
    if plain["checkpoint"] == IN_BULK:
        plain["checkpoint"] = None
    if "operations" in plain:
        plain["sink"] = plain["sink"] | {"operations": plain["operations"]}
    return StoredWatcher(
        watcher=from_document(plain),
        desired=Desired(document["desired"]),
        revision=document["revision"],
        added=document.get("added", 0),
        new_start=document["newStart"],
        begin=document.get("begin"),
        origin=document["origin"],
    )


def as_stored(stored: StoredWatcher) -> dict[str, Any]:
    """Return the document, as `restored` reads it, with its pipeline as text."""
    plain = to_document(stored.watcher)
    plain["source"] = plain["source"] | {"pipeline": json.dumps(plain["source"]["pipeline"])}
    if plain["checkpoint"] is None:
        plain["checkpoint"] = IN_BULK
    if stored.watcher.snapshot == "only":
        plain["operations"], plain["sink"] = plain["sink"]["operations"], plain["sink"] | {"operations": []}
    return {
        "_id": stored.name,
        "watcher": plain,
        "desired": stored.desired.value,
        "revision": stored.revision,
        "added": stored.added,
        "newStart": stored.new_start,
        "begin": stored.begin,
        "origin": stored.origin,
    }
