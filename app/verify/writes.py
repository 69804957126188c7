"""The comparison of a stream with a list of writes, for anyone who made the writes and knows their order.

One JSON object a line: `operation`, `id` (the document's `_id`, as Extended JSON), and, where that helps to tell one
write from the next, `fields`: values that the change sets. `"uncertain": true` marks a write that ended in an error and
may be missing. Where several collections are watched, `collection` says which one it is: `orders`, or `shop.orders`
where the whole deployment is. Order is compared per document, since several writers have no common one. The list is
held in memory.
"""

import json
from collections.abc import AsyncIterable
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from app.domain.watcher import Source, Watcher
from app.verify.bodies import from_json, text_of
from app.verify.errors import BadList
from app.verify.findings import Finding, Findings
from app.verify.rows import Rows

_KNOWN = frozenset({"operation", "id", "fields", "uncertain", "collection"})
UNLISTED = "messages are of changes that are not on the list"


@dataclass(slots=True)
class Write:
    """A line of the list. `seen` is the epoch in which it was last met, -1 before that."""

    line: int
    operation: str
    id: Any
    fields: dict[str, Any] = field(default_factory=dict)
    uncertain: bool = False
    collection: str = ""
    seen: int = -1

    def made(self, event: dict[str, Any]) -> bool:
        """Whether an event of the same document is this write."""
        if event.get("operationType") != self.operation:
            return False
        if self.operation == "update":
            there = (event.get("updateDescription") or {}).get("updatedFields") or {}
        else:
            there = event.get("fullDocument") or {}
        return all(name in there and text_of(there[name]) == text_of(value) for name, value in self.fields.items())

    def __str__(self) -> str:
        fields = f" {json.dumps(self.fields, ensure_ascii=False)}" if self.fields else ""
        return f"line {self.line}: {self.operation} {json.dumps(self.id, ensure_ascii=False)}{fields}"


def read_writes(path: Path) -> list[Write]:
    """Read a list. Raises BadList with the line that is wrong."""
    found = []
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    found.append(_write(number, line))
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise BadList(f"{path} cannot be read: {why}") from error
    except ValueError as error:
        raise BadList(f"{path}: {error}") from error
    return found


def _write(number: int, line: str) -> Write:
    try:
        entry = from_json(line)
    except ValueError:
        entry = {}
    if not isinstance(entry.get("operation"), str) or "id" not in entry:
        raise ValueError(f'line {number} is not an object such as {{"operation": "insert", "id": 7}}')
    unknown = sorted(set(entry) - _KNOWN)
    if unknown:
        raise ValueError(f"line {number} has {unknown[0]}, which is not one of {', '.join(sorted(_KNOWN))}")
    fields = entry.get("fields", {})
    if not isinstance(fields, dict):
        raise ValueError(f'line {number} has fields that are not an object such as {{"n": 1}}')  # noqa: TRY004 - a fault of the list
    collection = entry.get("collection", "")
    if not isinstance(collection, str):
        raise ValueError(f"line {number} has a collection that is no text")  # noqa: TRY004 - a fault of the list
    return Write(number, entry["operation"], entry["id"], fields, bool(entry.get("uncertain")), collection)


class _Document:
    """The writes of one document, and how far its messages have got among them in this epoch."""

    def __init__(self) -> None:
        self.writes: list[Write] = []
        self.next = 0
        self.epoch = 0

    def find(self, event: dict[str, Any], epoch: int) -> tuple[int, Write] | None:
        """The write that an event is: the next that fits and has not been met, else one that has been."""
        if epoch != self.epoch:
            self.next, self.epoch = 0, epoch
        for index in chain(range(self.next, len(self.writes)), range(self.next)):
            if self.writes[index].seen != epoch and self.writes[index].made(event):
                return index, self.writes[index]
        return next(((i, one) for i, one in enumerate(self.writes) if one.made(event)), None)


async def compare_writes(messages: AsyncIterable[Any], writes: list[Write], watcher: Watcher, rows: Rows) -> Findings:
    """Compare: each write once per epoch at most and once at all, in the list's order per document. `Rows.finish` comes
    next."""
    findings, operations = rows.findings, frozenset(watcher.sink.operations)
    documents: dict[tuple[str, str], _Document] = {}
    named = any(write.collection for write in writes)
    for write in writes:
        if write.operation in operations:
            documents.setdefault((write.collection, text_of(write.id)), _Document()).writes.append(write)
        else:
            findings.skip("writes are of operations that the watcher does not publish")
    async for message in messages:
        findings.messages += 1
        if message.token is None:
            findings.foreign += 1
            continue
        if message.gap is not None:
            findings.notes.append(f"#{message.sequence} is {message}: writes of that time count as lost")
            continue
        if message.epoch not in findings.epochs:
            findings.epochs.append(message.epoch)
        if message.row is not None:
            await rows.take_or_replay(message)
            continue
        event = message.event
        collection = _collection(event, watcher.source) if named else ""
        document = documents.get((collection, text_of((event.get("documentKey") or {}).get("_id"))))
        found = None if document is None else document.find(event, message.epoch)
        if document is None or found is None:
            findings.skip(UNLISTED)
            continue
        index, write = found
        if write.seen == message.epoch:
            _fault(findings, "doubled", message, f"{write} was there before")
            continue
        if write.seen == -1:
            findings.compared += 1
        write.seen = message.epoch
        if message.replayed:
            findings.notes.append(f"#{message.sequence} is the replay of a dead letter: {message}")
            continue
        if index < document.next:
            _fault(findings, "reordered", message, f"{write} comes after a later one of its document")
        document.next = max(document.next, index + 1)
    for write in writes:
        if write.seen == -1 and write.operation in operations and not write.uncertain:
            findings.faults["lost"].add(Finding(None, str(write)))
    return findings


def _collection(event: dict[str, Any], source: Source) -> str:
    """The collection of an event, as the list names it."""
    names = event.get("ns") or {}
    return str(names.get("coll", "")) if source.database else f"{names.get('db')}.{names.get('coll')}"


def _fault(findings: Findings, kind: str, message: Any, what: str) -> None:
    findings.faults[kind].add(Finding(message.token, what, message.epoch, message.sequence))
