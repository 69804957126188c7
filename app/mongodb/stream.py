"""What a change stream is asked for with: what it is over, where it starts, and the stages that make it up.

Pure: these are the commands, and nothing here sends one. A change stream over a database or the deployment is the same
command as one over a collection with other names in it, so `Target` alone knows the difference.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import bson
from bson import json_util
from bson.errors import BSONError
from bson.int64 import Int64
from bson.timestamp import Timestamp

from app.domain.errors import FieldProblem, Invalid, SourceRefused
from app.domain.tokens import ClusterTime, cluster_time
from app.domain.watcher import Source
from app.mongodb.scope_filter import scope_filter

COMMENT: Final = "changewire"
"""Marks a cursor as Changewire's in what MongoDB tells of its cursors ($currentOp)."""
MONGODB_5_1: Final = 14
MONGODB_6_0: Final = 17
"""Values of the server's `maxWireVersion`, which tells what it can do."""


@dataclass(frozen=True, slots=True)
class Target:
    """What a change stream is over: a collection, a whole database, or with neither the whole deployment."""

    database: str = ""
    collection: str = ""

    def __post_init__(self) -> None:
        if self.collection and not self.database:
            raise ValueError(f"collection {self.collection} has no database")

    @property
    def sent_to(self) -> str:
        """The database that the commands are sent to."""
        return self.database or "admin"

    def change_stream(self, start: Mapping[str, Any], **options: Any) -> dict[str, Any]:
        """Build the $changeStream stage. `start` is empty for now, or what a function below returns."""
        everywhere = {} if self.database else {"allChangesForCluster": True}
        return {"$changeStream": {**start, **options, **everywhere}}

    def aggregate(self, stages: Sequence[Mapping[str, Any]], *, size: int) -> dict[str, Any]:
        """Build the command that opens a cursor, whose first batch has `size` events at most."""
        return {
            "aggregate": self.collection or 1,
            "pipeline": list(stages),
            "cursor": {"batchSize": size},
            "comment": COMMENT,
        }

    def get_more(self, cursor: int, *, size: int, wait_ms: int) -> dict[str, Any]:
        return {"getMore": Int64(cursor), "collection": self._cursors_name, "batchSize": size, "maxTimeMS": wait_ms}

    def kill(self, cursor: int) -> dict[str, Any]:
        return {"killCursors": self._cursors_name, "cursors": [Int64(cursor)]}

    @property
    def _cursors_name(self) -> str:
        """What stands for the collection where a cursor is over more than one."""
        return self.collection or "$cmd.aggregate"


def after_token(token: str) -> dict[str, Any]:
    """Start after a token. `startAfter` takes all kinds: an event's, an invalidate's, a high-water mark."""
    return {"startAfter": {"_data": token}}


def at(moment: ClusterTime) -> dict[str, Any]:
    """Start with the first event of a cluster time, or after it."""
    return {"startAtOperationTime": Timestamp(moment.seconds, moment.increment)}


def at_time_of(token: str) -> dict[str, Any]:
    """Start with the first event that has the token's cluster time. Raises TokenRefused for what is not a token."""
    return at(cluster_time(token))


def moment_of(start: Mapping[str, Any]) -> ClusterTime | None:
    """Return the cluster time of a start; None where that is now."""
    if "startAtOperationTime" in start:
        return ClusterTime(start["startAtOperationTime"].time, start["startAtOperationTime"].inc)
    return cluster_time(start["startAfter"]["_data"]) if "startAfter" in start else None


class StreamRequest:
    """One watcher's change stream, as MongoDB is asked for it."""

    def __init__(self, source: Source, state_database: str = "") -> None:
        """`state_database` is left out where the deployment is watched."""
        self.source = source
        self._filter = scope_filter(source, state_database)
        self.target = Target(source.database, source.collection)
        self.wire_version = MONGODB_6_0
        """The server's maxWireVersion, once it is known."""
        self.first: tuple[Mapping[str, Any], ...] = ()
        """Stages of the service's own, which come before the watcher's pipeline."""

    def stages(
        self, start: Mapping[str, Any], *last: Mapping[str, Any], options: bool = True, pipeline: bool = True
    ) -> list[Mapping[str, Any]]:
        """Return the stages: the change stream from `start`, the scope's filter, the watcher's own pipeline, and `last`
        after it.

        `options` and `pipeline` leave those of the watcher out where they are False. Raises SourceRefused for a
        pipeline that is not Extended JSON."""
        first = self.target.change_stream(start, **(self._options() if options else {}))
        return [first, *self._filter, *self.first, *(self._pipeline() if pipeline else ()), *last]

    def _options(self) -> dict[str, Any]:
        """What is None is left to the server's default."""
        options: dict[str, Any] = {}
        if self.source.full_document is not None:
            options["fullDocument"] = self.source.full_document
        before = self.source.full_document_before_change
        # Before 6.0 no collection has pre-images and no server knows the option: that is what whenAvailable means.
        if before is not None and (self.wire_version >= MONGODB_6_0 or before != "whenAvailable"):
            options["fullDocumentBeforeChange"] = before
        if self.source.show_expanded_events:
            options["showExpandedEvents"] = True
        return options

    def _pipeline(self) -> list[dict[str, Any]]:
        try:
            return parse_pipeline(self.source.pipeline)
        except Invalid as error:
            raise SourceRefused(f"{self.source.namespace}: {error}") from error


def parse_pipeline(stages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Read a pipeline's Extended JSON (`{"$oid": …}`, `{"$date": …}`) into what BSON holds.

    Raises Invalid on the field `source.pipeline`.
    """
    try:
        pipeline: list[dict[str, Any]] = json.loads(json.dumps(list(stages)), object_hook=_extended)
        bson.encode({"pipeline": pipeline})
    except (TypeError, ValueError, ArithmeticError, LookupError, RecursionError, BSONError) as error:
        problem = f"is not Extended JSON that MongoDB understands: {error}"
        raise Invalid(problems=(FieldProblem("source.pipeline", problem),)) from error
    return pipeline


def _extended(value: dict[str, Any]) -> Any:
    # $regex is a query operator here, with operators beside it that json_util's reading of old JSON would drop.
    return value if "$regex" in value else json_util.object_hook(value, json_util.RELAXED_JSON_OPTIONS)
