"""A change event of more than the 16 MiB that MongoDB can send: what to leave out of it, or how to put it together.

A server from 6.0.9 on splits such an event into fragments ($changeStreamSplitLargeEvent). An older one can send it
without its documents. Pure: the server is asked in `large_event_reader.py`.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import bson
from bson.raw_bson import RawBSONDocument

from app.domain.watcher import Source
from app.mongodb.stream import at_time_of

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
_PLACE: Final = re.compile(r"82(.{16})(?:2B..|29)((?:..)*?)6[EF]5A1004")
"""Of an event's token: the time, the version of tokens (a stream that splits has another one than one that does not, so
that their tokens differ, from the UUID's end on in more than that), and the place within a transaction."""


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


class Fragments:
    """Collects the fragments of one event among those of others; `whole` is the event once all are there."""

    def __init__(self, reduced: bytes) -> None:
        self._reduced = reduced
        self._token: str = RawBSONDocument(reduced)["_id"]["_data"]
        self._place = _place(self._token)
        self._found: list[Mapping[str, Any]] = []
        self.whole: bytes | None = None

    @property
    def start(self) -> dict[str, Any]:
        """From where the stream has to be read."""
        return at_time_of(self._token)

    def take(self, fragments: Sequence[Mapping[str, Any]]) -> bool:
        """Take what came. Returns whether that was all: the event is whole, or it is not going to be."""
        for fragment in fragments:
            place = _place(fragment["_id"]["_data"])
            if place is None or self._place is None or place > self._place:
                return True
            if place < self._place:  # of the same transaction, and before it
                continue
            self._found.append(fragment)
            # One that has become small enough meanwhile comes in one piece.
            split = fragment.get(_SPLIT_EVENT, {"fragment": 1, "of": 1})
            if split["fragment"] != len(self._found):
                return True
            if split["of"] == len(self._found):
                self.whole = put_together(self._found, self._reduced)
                return True
        return False


def _place(token: str) -> tuple[str, ...] | None:
    """Return an event's place in its collection's history, which compares in order; None where the token tells none."""
    found = _PLACE.match(token)
    return found and found.groups()


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
