"""What a watcher's pipeline may do to a change event, and how one is found out that does more.

MongoDB insists on `_id` alone, and only when an event comes along. Changewire also needs the operation (it makes the
subject), the cluster time, the namespace and the document's key. Three looks, from cheap to certain: at the pipeline's
own words (`objection`), at what it makes of made-up events (`SAMPLED`, `sample`, `loss`), and at every event that comes
out of a pipeline which does more than filter (`damage`). Nothing is run here: that is done in `checks.py` and
`watcher_stream.py`.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from bson.timestamp import Timestamp

from app.domain.watcher import OPERATIONS, PUBLISHED, Source, Watcher

NEEDED: Final[Mapping[str, str]] = {
    "_id": "the resume token; MongoDB stops at the first event without it",
    "operationType": "which the subject is made from",
    "clusterTime": "the event's place in the oplog",
    "ns": "the collection that the event belongs to",
    "documentKey": "the changed document's key",
}
"""The fields that have to come out of a pipeline as they went in, and what they are."""
SAMPLED: Final = (*PUBLISHED, "drop", "rename", "dropDatabase", "invalidate")

_KEEP = "leave it as it is (an inclusive $project has to name it, _id excepted)"


def reshapes(pipeline: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a pipeline does more than choose events."""
    return any("$match" not in stage for stage in pipeline)


def objection(pipeline: Sequence[Mapping[str, Any]]) -> str | None:
    """Return what a pipeline certainly removes or changes, whatever the event, as a sentence; None where nothing."""
    for stage in pipeline:
        for name, body in stage.items():
            if name == "$changeStreamSplitLargeEvent":
                return "splits large events ($changeStreamSplitLargeEvent): a fragment is no event to publish"
            lost = _lost(name, body)
            if lost is not None:
                return _removed(lost)
    return None


def loss(event: Mapping[str, Any], samples: Sequence[Mapping[str, Any]]) -> str | None:
    """Return what an event that came out of the pipeline lacks of the sample that went in, as `objection`."""
    origin = next((sample for sample in samples if sample["_id"] == event.get("_id")), None)
    if origin is None:
        return _removed("_id")
    return next((_removed(field) for field in NEEDED if event.get(field) != origin.get(field)), None)


def damage(event: Mapping[str, Any], source: Source) -> str | None:
    """Return what an event out of a real stream lacks, as `objection`; MongoDB itself looks after `_id`."""
    operation = event.get("operationType")
    if operation not in OPERATIONS:
        return _removed("operationType")
    if not isinstance(event.get("clusterTime"), Timestamp):
        return _removed("clusterTime")
    if operation in PUBLISHED:  # of the others not every one has a namespace and a key
        namespace = event.get("ns")
        if not isinstance(namespace, Mapping) or set(namespace) != {"db", "coll"}:
            return _removed("ns")
        if not source.has(namespace["db"], namespace["coll"]):
            return _removed("ns")
        if not isinstance(event.get("documentKey"), Mapping):
            return _removed("documentKey")
    return None


def sample(watcher: Watcher, operation: str) -> dict[str, Any]:
    """Make up a change event, for a pipeline to be tried on."""
    namespace = {"db": watcher.source.database or "sample", "coll": watcher.source.collection or "sample"}
    document = {"_id": "sample"}
    return {
        "_id": {"_data": "82" + "0" * 16 + operation.encode().hex().upper()},
        "operationType": operation,
        "clusterTime": Timestamp(1, 1),
        "wallTime": datetime.fromtimestamp(1, UTC),
        "ns": namespace,
        **({"documentKey": document} if operation in PUBLISHED else {}),
        **({"fullDocument": document} if operation in ("insert", "update", "replace") else {}),
        **({"fullDocumentBeforeChange": document} if operation in ("update", "replace", "delete") else {}),
        **(
            {"updateDescription": {"updatedFields": {}, "removedFields": [], "truncatedArrays": []}}
            if operation == "update"
            else {}
        ),
    }


def _removed(field: str) -> str:
    return f"removes or changes the event's {field}, {NEEDED[field]}; {_KEEP}"


def _lost(stage: str, body: Any) -> str | None:
    """Return the first needed field that a stage does away with for certain."""
    match stage:
        case "$unset":
            return _first(body if isinstance(body, list) else [body])
        case "$set" | "$addFields" if isinstance(body, Mapping):
            return _first(path for path, value in _paths(body) if value != f"${path}")
        case "$project" if isinstance(body, Mapping):
            return _lost_by_project(dict(_paths(body)))
        case "$replaceRoot" if isinstance(body, Mapping):
            return _lost("$replaceWith", body.get("newRoot"))
        case "$replaceWith" if isinstance(body, str) and body not in ("$$ROOT", "$$CURRENT"):
            return "_id"
    return None


def _lost_by_project(paths: Mapping[str, Any]) -> str | None:
    off = [path for path, value in paths.items() if _is_switch(value) and not value]
    computed = [path for path, value in paths.items() if not _is_switch(value) and value != f"${path}"]
    lost = _first([*off, *computed])
    if lost is not None or [path for path in off if path != "_id"]:
        return lost
    # An inclusion. A part of a needed field (`ns.coll`) may be all there is of it; the samples tell.
    kept = {"_id", *(path.partition(".")[0] for path in paths)}
    return next((field for field in NEEDED if field not in kept), None)


def _is_switch(value: Any) -> bool:
    return isinstance(value, int | float)


def _first(paths: Sequence[Any] | Iterator[Any]) -> str | None:
    """Return the first needed field that is, or holds, one of the paths."""
    return next((top for top in (str(path).partition(".")[0] for path in paths) if top in NEEDED), None)


def _paths(fields: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each field of a stage by its dotted path; a document without operators is one more way to write paths."""
    for name, value in fields.items():
        if isinstance(value, Mapping) and value and not any(key.startswith("$") for key in value):
            yield from _paths(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value
