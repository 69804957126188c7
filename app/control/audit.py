"""What a change that was asked for over HTTP did to a watcher, noted in the record of that request.

The record is found by context. What happens without a request (the configuration file, another instance) has none, and
noting does nothing then. `api/middleware/audit_log.py` adds who has asked, and writes the line.
"""

import json
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from app.domain.lifecycle import Desired
from app.domain.plain import plain
from app.domain.watcher import StoredWatcher, to_document

LONGEST = 2000
"""Characters of one value; a pipeline may have a million."""


@dataclass(frozen=True, slots=True)
class Changed:
    """What was done to one watcher. `before` and `after` hold what differs, by dotted path; None where it was not."""

    watcher: str | None
    before: dict[str, Any] | None
    after: dict[str, Any] | None


@dataclass(slots=True)
class Record:
    """What one request did, to one watcher or to several."""

    changes: list[Changed] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    elsewhere: bool = False
    """Whether another instance has answered the request, and has written the line."""


record: ContextVar[Record | None] = ContextVar("audit_record", default=None)


def changed(name: str, before: StoredWatcher | None, after: StoredWatcher | None) -> None:
    """Note a watcher's definition before and after; None where it was not there, or is no longer."""
    current = record.get()
    if current is None:
        return
    old, new = _flat(before), _flat(after)
    if old is not None and new is not None:
        paths = sorted(path for path in old.keys() | new.keys() if old.get(path) != new.get(path))
        old, new = ({path: side.get(path) for path in paths} for side in (old, new))
    current.changes.append(Changed(name, _short(old), _short(new)))


def note(**facts: Any) -> None:
    """Note other facts, such as the position to which a watcher was moved."""
    current = record.get()
    if current is not None:
        current.facts |= {name: _value(value) for name, value in facts.items()}


def elsewhere() -> None:
    """Note that another instance has answered, and writes the line."""
    current = record.get()
    if current is not None:
        current.elsewhere = True


def _flat(stored: StoredWatcher | None) -> dict[str, Any] | None:
    if stored is None:
        return None
    document = to_document(stored.watcher) | {"paused": stored.desired is Desired.PAUSED, "revision": stored.revision}
    flat: dict[str, Any] = {}
    for key, value in document.items():
        if isinstance(value, Mapping):
            flat |= {f"{key}.{inner}": each for inner, each in value.items()}
        else:
            flat[key] = value
    return flat


def _short(side: dict[str, Any] | None) -> dict[str, Any] | None:
    return None if side is None else {path: _value(value) for path, value in side.items()}


def _value(value: Any) -> Any:
    if isinstance(value, bool | int | float | None):
        return value
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return plain(text) if len(text) <= LONGEST else f"{plain(text[:LONGEST])}… ({len(text)} characters)"
