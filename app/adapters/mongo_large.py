"""A change event of more than the 16 MiB that MongoDB can send: what to leave out of it, or how to put it together.

A server from 6.0.9 on splits such an event into fragments ($changeStreamSplitLargeEvent). Of an older one it can be had
without its documents: a stage behind the watcher's own pipeline takes them out, so that the same events are seen.
Not its business: asking the server (`mongo_changes.py`).
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import bson
from bson.raw_bson import RawBSONDocument

from app.domain.watcher import Source

SPLIT: Final[Mapping[str, Any]] = {"$changeStreamSplitLargeEvent": {}}
UNKNOWN_STAGE: Final = 40324
DROPS: Final = (
    ("fullDocumentBeforeChange",),
    ("fullDocument", "fullDocumentBeforeChange"),
    ("fullDocument", "fullDocumentBeforeChange", "updateDescription"),
)
"""What is left out, tried in this order."""
_SPLIT_EVENT: Final = "splitEvent"
_SAME: Final = ("operationType", "clusterTime", "documentKey")


def left_out(event: bytes, source: Source, names: Sequence[str]) -> tuple[str, ...]:
    """Return which of the fields that were taken out of an event it had, as far as its operation and options tell."""
    operation = RawBSONDocument(event).get("operationType")
    before, after = source.full_document_before_change, source.full_document
    had = {
        "fullDocument": operation in ("insert", "replace")
        or (operation == "update" and after not in (None, "default")),
        "fullDocumentBeforeChange": operation in ("update", "replace", "delete") and before not in (None, "off"),
        "updateDescription": operation == "update",
    }
    return tuple(name for name in names if had[name])


def fragments_left(fragment: Mapping[str, Any], count: int) -> int | None:
    """Return how many fragments are still to come after this one, the `count`th; None where it is none of its event."""
    split = fragment.get(_SPLIT_EVENT)
    if not isinstance(split, Mapping) or split.get("fragment") != count:
        return None
    return int(split["of"]) - count


def put_together(fragments: Sequence[Mapping[str, Any]], reduced: bytes) -> bytes | None:
    """Return the event that was split, as BSON; None where it is not the one that `reduced` is the rest of.

    A fragment's token leads into the middle of the event; the whole one's is the reduced event's.
    """
    rest = RawBSONDocument(reduced)
    whole: dict[str, Any] = {"_id": rest["_id"]}
    for fragment in fragments:
        whole |= {name: value for name, value in fragment.items() if name not in ("_id", _SPLIT_EVENT)}
    if any(whole.get(name) != rest.get(name) for name in _SAME):
        return None
    return bson.encode(whole)
