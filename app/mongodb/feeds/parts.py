"""A batch of events taken apart by collection: the reference of the native one."""

from collections.abc import Sequence

from bson.raw_bson import RawBSONDocument

from app.domain.parts import Part
from app.domain.raw_events import RawEvents

SEVERAL = frozenset({"rename", "dropDatabase", "invalidate"})
"""Operations that concern several collections, or none."""


def split(events: Sequence[bytes]) -> list[Part]:
    """Take events apart: each collection's together, in the order in which the collections first appear."""
    parts: list[Part] = []
    gathered: dict[tuple[str, str], list[tuple[str, bytes]]] = {}

    def end() -> None:
        parts.extend(_part(*name, together) for name, together in gathered.items())
        gathered.clear()

    for raw in events:
        event = RawBSONDocument(raw)
        token, namespace = event["_id"]["_data"], event.get("ns") or {}
        if event.get("operationType") in SEVERAL or "coll" not in namespace:
            end()
            parts.append(_part("", "", [(token, raw)]))
        else:
            gathered.setdefault((namespace["db"], namespace["coll"]), []).append((token, raw))
    end()
    return parts


def _part(database: str, collection: str, events: Sequence[tuple[str, bytes]]) -> Part:
    starts, ends, at = [], [], 0
    for _, raw in events:
        starts.append(at)
        at += len(raw)
        ends.append(at)
    whole = RawEvents(b"".join(raw for _, raw in events), starts, ends)
    return Part(database, collection, whole, events[0][0], events[-1][0])


def concerned(raw: bytes) -> list[tuple[str, str]]:
    """Return the collections whose own change streams have an event that is a part of its own.

    A collection's stream has a rename from its name and one to it. It has no dropDatabase: each collection's drop comes
    before that. And its invalidate is not the database's."""
    event = RawBSONDocument(raw)
    if event.get("operationType") != "rename":
        return []
    return list(dict.fromkeys((name["db"], name["coll"]) for name in (event["ns"], event["to"])))


def token_of(raw: bytes) -> str:
    """Return the token of an event."""
    return str(RawBSONDocument(raw)["_id"]["_data"])
