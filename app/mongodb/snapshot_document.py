"""A snapshot's run as a document of the collection `snapshots`: one of each watcher, with its name as the `_id`.

A chunk's plan is a field of its own below `chunks`, so that planning one and forgetting another is one small update.
"""

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, Final

from bson import Binary

from app.domain.snapshot import Chunk, Part, Snapshot

COLLECTION: Final = "snapshots"
_PLAIN: Final = tuple(
    field.name for field in fields(Snapshot) if field.name not in ("watcher", "chunks", "parts", "wanted")
)


def as_document(run: Snapshot) -> dict[str, Any]:
    """Return a run as `restored` reads it."""
    return {"_id": run.watcher, **changes(None, run)}


def changes(before: Snapshot | None, after: Snapshot) -> dict[str, Any]:
    """Return the fields that differ; of a new run all of them."""
    changed = {name: getattr(after, name) for name in (*_PLAIN, "open")}
    if before is not None:
        changed = {name: value for name, value in changed.items() if value != getattr(before, name)}
    if before is None or before.wanted != after.wanted:
        changed["wanted"] = list(after.wanted)
    if before is None or before.parts != after.parts:
        changed["parts"] = [_part(part) for part in after.parts]
    if before is None:
        changed["chunks"] = {str(each.number): _chunk(each) for each in after.chunks}
    else:
        known = {each.number: each for each in before.chunks}
        changed |= {
            f"chunks.{each.number}": _chunk(each)
            for each in after.chunks
            if (there := known.get(each.number)) is not each and there != each  # of thousands all but one are the same
        }
    return changed


def forgotten(before: Snapshot, after: Snapshot) -> list[str]:
    """Return the fields of the chunks that are not kept any more."""
    kept = {each.number for each in after.chunks}
    return [f"chunks.{each.number}" for each in before.chunks if each.number not in kept]


def _part(part: Part) -> list[Any]:
    known = [part.namespace, part.uuid, part.capped, part.clustered]
    return [*known, True] if part.left else known  # earlier versions know of no fifth one


def _chunk(chunk: Chunk) -> dict[str, Any]:
    return {
        "mark": chunk.mark, "part": chunk.part, "after": chunk.after, "until": chunk.until, "since": chunk.since,
        "count": chunk.count, "cut": chunk.cut, "plan": chunk.plan, "settled": chunk.settled,
        "keys": Binary(b"".join(chunk.keys)),
    }  # fmt: skip


def restored(document: Mapping[str, Any]) -> Snapshot:
    """Return the run that a document tells."""
    plain: dict[str, Any] = {name: document.get(name) for name in _PLAIN}
    chunks = [
        Chunk(
            int(number), each["mark"], each["part"], _bytes(each["after"]), _bytes(each["until"]),
            _keys(bytes(each["keys"])), each["since"], each["count"], each["cut"],
            each["plan"], each["settled"],
        )
        for number, each in document.get("chunks", {}).items()
    ]  # fmt: skip
    snapshot = Snapshot(
        watcher=str(document["_id"]),
        wanted=tuple(document["wanted"]),
        parts=tuple(Part(*each) for each in document["parts"]),
        chunks=tuple(sorted(chunks, key=lambda chunk: chunk.number)),
        **plain,
    )
    return replace(snapshot, after=_bytes(snapshot.after))


def _bytes(value: Any) -> bytes | None:
    return None if value is None else bytes(value)


def _keys(joined: bytes) -> tuple[bytes, ...]:
    """Take apart documents that follow one another: each begins with its length."""
    keys, at = [], 0
    while at < len(joined):
        end = at + int.from_bytes(joined[at : at + 4], "little")
        keys.append(joined[at:end])
        at = end
    return tuple(keys)
