"""What the stream's messages tell of documents, for a snapshot's row to be compared with: pure, and within a bound.

A row has to be its document as the changes before it have left it, and a change after it has to change something. What
is known of a document is its last row, insert or replacement, and the updates since. Of an update without any of these
before it, only the fields that it names are known.
"""

import json
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from app.verify.bodies import from_json, text_of

HELD_BYTES: Final = 64 * 1024 * 1024
"""Bodies that are kept in all; those of the documents that were met longest ago go first."""
UPDATES: Final = 32
"""After so many updates in a row a document is taken for unknown."""
_WHOLE: Final = frozenset({"insert", "replace", "snapshot"})


@dataclass(slots=True)
class Document:
    """What is known of a document. `whole`: it has no other fields than these. Of `unclear` ones nothing is known."""

    whole: bool = False
    fields: dict[str, Any] = field(default_factory=dict)
    absent: set[str] = field(default_factory=set)
    unclear: set[str] = field(default_factory=set)

    def update(self, description: Mapping[str, Any]) -> None:
        """Take over what an update did."""
        for path, value in (description.get("updatedFields") or {}).items():
            self._put(path, value)
        for path in description.get("removedFields") or ():
            self._put(path, None, remove=True)
        for each in description.get("truncatedArrays") or ():
            self.unclear.add(str(each.get("field", "")).partition(".")[0])

    def _put(self, path: str, value: Any, *, remove: bool = False) -> None:
        name, *more = path.split(".")
        place: Any = self.fields
        if more:
            if path in self.fields or name not in self.fields or name in self.unclear:
                self.unclear |= {name, path}  # a name with a dot, or a part of what is not known
                return
            for step in (name, *more[:-1]):
                place = place.get(step) if isinstance(place, dict) else None
            if not isinstance(place, dict):
                self.unclear.add(name)  # within an array, or through a name with a dot
                return
        if remove:
            place.pop(more[-1] if more else name, None)
        else:
            place[more[-1] if more else name] = value
        if not more:
            self.unclear.discard(name)
            (self.absent.add if remove else self.absent.discard)(name)

    def differs(self, row: Mapping[str, Any]) -> list[str]:
        """Return the fields in which a row is another document than this."""
        names = [
            name
            for name, value in self.fields.items()
            if name not in self.unclear and (name not in row or text_of(row[name]) != text_of(value))
        ]
        names += [name for name in row if name in self.absent and name not in self.unclear]
        if self.whole:
            known = self.fields.keys() | self.absent | self.unclear
            names += [name for name in row if name not in known]
        return names


@dataclass(slots=True)
class _Told:
    """The messages that tell of one document, from the last whole one on. `row` is the sequence of a snapshot's row
    that nothing has come after yet, else 0."""

    bodies: list[bytes]
    row: int = 0

    @property
    def size(self) -> int:
        return sum(map(len, self.bodies))


class Documents:
    """Those that were met last. A key tells a document from all others."""

    def __init__(self, held: int = HELD_BYTES) -> None:
        self._most = held
        self._held = 0
        self._told: OrderedDict[bytes, _Told] = OrderedDict()

    def forget(self, key: bytes) -> None:
        """What is known of a document holds no longer, or may not."""
        told = self._told.pop(key, None)
        self._held -= 0 if told is None else told.size

    def forget_all(self) -> None:
        self._told.clear()
        self._held = 0

    def change(self, key: bytes, event: Mapping[str, Any], body: bytes) -> int | None:
        """Take a change over. Return the sequence of the row before it where that has its effect already."""
        told = self._told.get(key)
        row = told.row if told is not None and told.row and _has_effect(told, event) else None
        if event["operationType"] == "update" and told is not None:
            if len(told.bodies) > UPDATES:
                self.forget(key)
            else:
                told.bodies.append(body)
                told.row = 0
                self._hold(key, len(body))
        else:
            self.forget(key)
            self._told[key] = _Told([body])
            self._hold(key, len(body))
        return row

    def row(self, key: bytes, row: Mapping[str, Any], body: bytes, sequence: int) -> list[str] | None:
        """Take a row over. Return in which fields it is not as the changes before it have left the document; None
        where nothing is known of that. `_id` alone stands for a document that was deleted."""
        told = self._told.get(key)
        names = None
        if told is not None:
            document = _document(told)
            names = ["_id"] if document is None else document.differs(row)
        self.forget(key)
        self._told[key] = _Told([body], sequence)
        self._hold(key, len(body))
        return names

    def _hold(self, key: bytes, more: int) -> None:
        self._held += more
        self._told.move_to_end(key)
        while self._held > self._most:
            _, told = self._told.popitem(last=False)
            self._held -= told.size


def _document(told: _Told) -> Document | None:
    """Return what is known of a document; None where it was deleted."""
    document = Document()
    for body in told.bodies:
        event = from_json(body)
        operation = event["operationType"]
        if operation == "delete":
            return None
        if operation in _WHOLE:
            document = Document(whole=True, fields=dict(event["fullDocument"]))
        else:
            document.update(event.get("updateDescription") or {})
    return document


def _has_effect(told: _Told, event: Mapping[str, Any]) -> bool:
    """Whether a row is newer than the change after it. MongoDB makes no event of a write that changes nothing.

    A number's type may change, which JSON does not show: so equal integers prove nothing."""
    operation, document = event["operationType"], _document(told)
    if operation == "insert":
        return True
    assert document is not None, "a row is a document that exists"
    if operation == "replace":
        there, new = dict(document.fields), dict(event.get("fullDocument") or {})
        there.pop("_id", None), new.pop("_id", None)
        return json.dumps(there) == json.dumps(new) and not _has_integer(new)
    if operation != "update":
        return False
    description = event.get("updateDescription") or {}
    updated, removed = description.get("updatedFields") or {}, description.get("removedFields") or ()
    if description.get("truncatedArrays") or not (updated or removed):
        return False
    before = json.dumps(document.fields)
    document.update(description)
    proves = bool(removed) or not all(map(_has_integer, updated.values()))
    return proves and not document.unclear and json.dumps(document.fields) == before


def _has_integer(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_has_integer, value.values()))
    if isinstance(value, list):
        return any(map(_has_integer, value))
    return isinstance(value, int) and not isinstance(value, bool)
