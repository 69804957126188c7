"""The shapes of the calls about a watcher's snapshot."""

from typing import Any, Literal

import orjson
from pydantic import ConfigDict, Field

from app.api.schemas.base import Answer, Shape, Time, moment, shown
from app.api.schemas.values import Filter
from app.domain.status import SnapshotView


class SnapshotWish(Shape):
    """Which documents a snapshot takes; all, where nothing is said."""

    model_config = ConfigDict(json_schema_extra={"example": {"filter": {"status": "open"}}})

    filter: Filter | None = None
    """A query as MongoDB's `find` takes it, in Extended JSON: only documents that it matches are published."""
    collections: list[str] = Field(default=[])
    """Collections, such as `shop.orders`, of those that the watcher reads. Empty: all of them."""


class SnapshotAnswer(Answer):
    """A run of a watcher's snapshot: the one that is running, or the last one."""

    state: Literal["running", "done", "cancelled", "failed"]
    run: str
    """Its name: header `Changewire-Snapshot` of each of its messages."""
    kind: Literal["initial", "on_demand"]
    reason: str | None
    """Why it was cancelled or failed."""
    documents: int
    """How many were read and published, or are about to be."""
    estimated_total: int | None
    """How many there are in all, about. Null until it is known, and with a filter."""
    requested_at: Time
    started_at: Time | None
    finished_at: Time | None
    collections: list[str]
    """Those that it reads, once it has begun."""
    collection: str | None
    """The one that is being read."""
    filter: dict[str, Any] | None
    waits: str | None
    """What it waits for, such as another snapshot, or a watcher that is paused. Null while it is under way, and when it
    has ended."""
    rows_per_second: float
    """How many documents were published over the last ten seconds."""
    estimated_end: Time | None
    """When it is done if it goes on as in the last minute. Null where that cannot be told: with a filter, and while it
    waits."""

    @staticmethod
    def of(view: SnapshotView) -> "SnapshotAnswer":
        value = view.run
        reading = value.running and value.begun and not value.read
        return SnapshotAnswer.model_construct(
            state=value.state,
            run=value.run,
            kind=value.kind,
            reason=shown(value.reason),
            documents=value.documents,
            estimated_total=value.estimated_total,
            requested_at=moment(value.requested_at),
            started_at=moment(value.started_at),
            finished_at=moment(value.finished_at),
            collections=value.names,
            collection=value.parts[value.part].namespace if reading else None,
            filter=None if value.filter is None else orjson.loads(value.filter),
            waits=shown(view.waits),
            rows_per_second=round(view.rows_per_second, 3),
            estimated_end=moment(view.estimated_end),
        )
