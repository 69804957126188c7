"""Changes as they were made and messages as they arrived, and how the two compare."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

HEADER = "Nats-Msg-Id"


class Change(NamedTuple):
    """What tells a change from all others. `number` is unique to it; a delete, its document's only one, has none."""

    operation: str
    id: Any
    number: int | None


@dataclass(frozen=True)
class Message:
    """One message as it is on the stream."""

    sequence: int
    subject: str
    headers: Mapping[str, str]
    body: bytes = field(repr=False)

    @property
    def id(self) -> str:
        return self.headers[HEADER]

    @cached_property
    def event(self) -> dict[str, Any]:
        event: dict[str, Any] = json.loads(self.body)
        return event

    @property
    def change(self) -> Change:
        event = self.event
        operation, number = event["operationType"], None
        if operation in ("insert", "replace"):
            number = event["fullDocument"]["n"]
        elif operation == "update":
            number = event["updateDescription"]["updatedFields"]["n"]
        return Change(operation, event["documentKey"]["_id"], number)


def assert_same(written: Sequence[Change], arrived: Sequence[Change]) -> None:
    """Compare what happened with what arrived, and say in words what is wrong."""
    if list(written) == list(arrived):
        return
    counts = Counter(arrived)
    lost = [change for change in written if change not in counts]
    doubled = [change for change, count in counts.items() if count > 1]
    unknown = [change for change in counts if change not in set(written)]
    first = next((i for i, (a, b) in enumerate(zip(written, arrived, strict=False)) if a != b), None)
    raise AssertionError(
        f"{len(written)} changes, {len(arrived)} messages: {len(lost)} lost {lost[:3]}, {len(doubled)} doubled "
        f"{doubled[:3]}, {len(unknown)} unknown {unknown[:3]}; they part at index {first}"
    )
