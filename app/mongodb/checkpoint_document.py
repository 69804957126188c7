"""A position as a document: mongodb-nats-connector's (`value` is the token's `_data`) with fields of our own beside it.

Either program goes on from what the other left. A position within a snapshot's rows is the `value` that events are read
on after, and the row's place beside it. Which document of a collection is a position at all is in `owned.py`.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from bson.timestamp import Timestamp

from app.domain.position import Checkpoint, OwnMessage
from app.domain.tokens import cluster_time, is_row, parse_message_id, token_of
from app.domain.watcher import Route


def newest_of(documents: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Pick the valid one of a capped collection's last documents, which come newest first.

    An insert cannot be conditional, so of two writers at once the last may have inserted the lesser position. What
    counts is the greatest epoch and token of ours since mongodb-nats-connector last wrote, or what that wrote where it
    was the last.
    """
    ours: list[Mapping[str, Any]] = []
    for document in documents:
        if document.get("epoch") is None:
            return max(ours, key=_rank) if ours else document
        ours.append(document)
    return max(ours, key=_rank) if ours else None


def position_of(document: Mapping[str, Any]) -> str:
    """Return the position that a document tells: its token, or the row's place after that moment.

    A row beside another token is what mongodb-nats-connector left beside its own."""
    value, row = document["value"], document.get("row")
    return row if isinstance(row, str) and token_of(row) == value else value


def _rank(document: Mapping[str, Any]) -> tuple[int, str]:
    return document["epoch"], position_of(document)


def may_follow(checkpoint: Checkpoint, stored: Mapping[str, Any]) -> bool:
    """Whether `checkpoint` may follow what is stored: it has a later epoch, or a greater token in the same one.

    What mongodb-nats-connector stored has no epoch; its token alone counts."""
    epoch = checkpoint.epoch or 0
    return bool((stored.get("epoch", epoch), position_of(stored)) < (epoch, checkpoint.token))


def set_where_it_may_follow(fields: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Build the update that sets `fields` where `may_follow` is true of what is stored, and else changes nothing."""
    epoch = {"$ifNull": ["$epoch", fields["epoch"]]}
    earlier_position = {
        "$or": [
            {"$lt": ["$value", fields["value"]]},
            # A row beside the same token is later than the token. One beside another token says nothing.
            {"$and": [{"$eq": ["$value", fields["value"]]}, {"$not": _has_row_from(fields["value"], fields["row"])}]},
        ]
    }
    earlier = {
        "$or": [
            {"$lt": [epoch, fields["epoch"]]},
            {"$and": [{"$eq": [epoch, fields["epoch"]]}, earlier_position]},
        ]
    }
    return _set_where(earlier, fields)


def _has_row_from(value: str, row: str | None) -> dict[str, Any]:
    """Build the expression that is true of a document with this row, or a later one, of the same token. Without a row,
    all with the same token are as late."""
    if row is None:
        return {"$literal": True}
    return {"$and": [{"$gte": ["$row", row]}, {"$lt": ["$row", f"{value};"]}]}  # what begins with the token and a colon


def is_of_earlier_epoch(checkpoint: Checkpoint, stored: Mapping[str, Any]) -> bool:
    """Whether what is stored is of an earlier epoch; mongodb-nats-connector's has none, and counts as the earliest."""
    return bool(stored.get("epoch", -1) < (checkpoint.epoch or 0))


def set_where_epoch_is_earlier(fields: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Build the update that sets `fields`, and takes back the unsettled places, where `is_of_earlier_epoch` is true."""
    return _set_where({"$lt": [{"$ifNull": ["$epoch", -1]}, fields["epoch"]]}, {**fields, "doubt": None})


def _set_where(condition: Mapping[str, Any], fields: Mapping[str, Any]) -> list[dict[str, Any]]:
    changed = {"$mergeObjects": ["$$ROOT", {"$literal": fields}]}
    return [{"$replaceWith": {"$cond": [condition, changed, "$$ROOT"]}}]


def as_fields(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the fields that tell a position; `home` and `registry` tell where it is stored."""
    moment = cluster_time(checkpoint.token)
    return {
        "value": token_of(checkpoint.token),
        "row": checkpoint.token if is_row(checkpoint.token) else None,
        "clusterTime": Timestamp(moment.seconds, moment.increment),
        "sequence": checkpoint.sequence,
        "streamCreated": checkpoint.stream_created,
        "epoch": checkpoint.epoch or 0,
        "scope": checkpoint.scope,
        "watcher": checkpoint.watcher,
        "stream": checkpoint.route and checkpoint.route.stream,
        "subject": checkpoint.route and checkpoint.route.subject,
        "selection": checkpoint.route and checkpoint.route.selection,
        "updatedAt": datetime.fromtimestamp(checkpoint.updated_at, UTC) if checkpoint.updated_at is not None else None,
        "ownSequence": checkpoint.own.sequence if checkpoint.own is not None else None,
        "ownId": str(checkpoint.own.id) if checkpoint.own is not None else None,
        "counted": checkpoint.counted,
    }


def as_checkpoint(document: Mapping[str, Any], home: str | None) -> Checkpoint:
    """Return the position that a document tells. `home` is the UUID of the collection in which it was found."""
    updated_at, own_id = document.get("updatedAt"), parse_message_id(document.get("ownId"))
    stream, subject, selection = (document.get(name) for name in ("stream", "subject", "selection"))
    return Checkpoint(
        token=position_of(document),
        epoch=document.get("epoch"),
        sequence=document.get("sequence"),
        stream_created=document.get("streamCreated"),
        scope=document.get("scope"),
        watcher=document.get("watcher"),
        route=Route(stream, subject, selection) if stream and subject and selection else None,
        updated_at=None if updated_at is None else updated_at.timestamp(),
        own=None if own_id is None else OwnMessage(document["ownSequence"], own_id),
        unsettled=tuple(
            OwnMessage(doubt["sequence"], id_)
            for doubt in document.get("doubt") or ()
            if (id_ := parse_message_id(doubt["id"])) is not None
        ),
        counted=document.get("counted") is not False,
        native=None if document.get("home") is None else document["home"] == home,
    )
