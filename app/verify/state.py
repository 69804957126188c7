"""What the service has stored: a watcher's definition and its position, read by plain pymongo."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import pymongo
from bson import json_util
from pymongo import AsyncMongoClient
from pymongo.errors import OperationFailure
from pymongo.read_concern import ReadConcern

from app.domain.tokens import ClusterTime, is_row, token_of
from app.domain.watcher import Route, Watcher, from_document
from app.verify.errors import CannotCompare
from app.verify.rows import Record

UNAUTHORIZED: Final = 13

CALL_SECONDS: Final = 30.0
"""The bound of an ordinary command. A server may be as busy as that; one that is gone is noticed by its heartbeats."""
_LOOK_BACK: Final = 16
Client = AsyncMongoClient[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Position:
    """A stored position; what is None was not stored (mongodb-nats-connector stores the token alone). `token` is the
    place of a snapshot's row where the watcher is within a run."""

    token: str
    epoch: int | None
    sequence: int | None
    stream_created: str | None
    scope: str | None
    route: Route | None

    def belongs_to(self, watcher: Watcher) -> bool:
        """Whether it is a position of this watcher as it is defined now."""
        namespace = None if self.scope is None else self.scope.partition("/")[2]
        return self.route in (None, watcher.route) and namespace in (None, watcher.source.namespace)


async def read_watcher(client: Client, state_database: str, name: str) -> Watcher:
    """Read a watcher's definition. Raises CannotCompare where there is none, and what pymongo raises."""
    watchers = client[state_database]["watchers"]
    with pymongo.timeout(CALL_SECONDS):
        document = await watchers.find_one({"_id": name})
        names = [] if document is not None else [str(one["_id"]) async for one in watchers.find({}, {"_id": 1})]
    if document is None:
        there = f"watchers: {', '.join(sorted(names))}" if names else "there are none"
        raise CannotCompare(f"there is no watcher {name} in the database {state_database}; {there}")
    try:
        plain = dict(document["watcher"])
        plain["source"] = plain["source"] | {"pipeline": json.loads(plain["source"]["pipeline"])}
        if plain["checkpoint"] == "state":  # among the positions of all watchers
            plain["checkpoint"] = None
        return from_document(plain)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CannotCompare(
            f"the watcher {name} in {state_database} cannot be read ({error!r}); a later version may have written it"
        ) from error


async def read_position(client: Client, watcher: Watcher, state_database: str) -> Position | None:
    """Read the stored position, the newest by `_id`; in a capped collection the furthest of the last few. Where the
    watcher names no place: what is under its name in the state database, if it is of the collection that it reads."""
    place = watcher.checkpoint
    if place is None:
        kept = client[state_database].get_collection("checkpoints", read_concern=ReadConcern("majority"))
        scope = re.compile(f"/{re.escape(watcher.source.namespace)}\\Z")
        with pymongo.timeout(CALL_SECONDS):
            one = await kept.find_one({"_id": watcher.name, "scope": {"$in": [None, scope]}})
        return None if one is None else _as_position(one)
    database = client[place.database]
    collection = database.get_collection(place.collection, read_concern=ReadConcern("majority"))
    with pymongo.timeout(CALL_SECONDS):
        capped = bool((await collection.options()).get("capped"))
        order, count = ("$natural", _LOOK_BACK) if capped else ("_id", 1)
        found = await collection.find({"value": {"$type": "string"}}, sort=[(order, -1)], limit=count).to_list()
    if not found:
        return None
    return _as_position(max(found, key=lambda one: (one.get("epoch") or 0, _position(one))))


async def read_run(client: Client, state_database: str, name: str) -> Record | None:
    """Read what is stored of the watcher's last snapshot; None also for an account without the state database, under
    which watchers of connector.yaml run, and none takes a snapshot."""
    runs = client[state_database].get_collection("snapshots", read_concern=ReadConcern("majority"))
    with pymongo.timeout(CALL_SECONDS):
        try:
            found = await runs.find_one({"_id": name}, {"chunks": 0})
        except OperationFailure as error:
            if error.code != UNAUTHORIZED:
                raise
            return None
    if found is None:
        return None
    return Record(found["run"], found["state"], found.get("reason"), found.get("epoch"), int(found["documents"]))


async def read_clock(client: Client) -> tuple[ClusterTime, int]:
    """Return the deployment's operationTime and its wire version. Raises CannotCompare for a standalone server."""
    with pymongo.timeout(CALL_SECONDS):
        hello = await client.admin.command("hello")
    if "operationTime" not in hello:
        raise CannotCompare("this MongoDB is a standalone server, which has no change streams: it needs a replica set")
    moment = hello["operationTime"]
    return ClusterTime(moment.time, moment.inc), int(hello["maxWireVersion"])


def parse_pipeline(watcher: Watcher) -> list[dict[str, Any]]:
    """Return the pipeline with what its Extended JSON stands for. Raises CannotCompare."""
    try:
        pipeline: list[dict[str, Any]] = json.loads(json.dumps(list(watcher.source.pipeline)), object_hook=_extended)
    except (TypeError, ValueError, ArithmeticError) as error:
        raise CannotCompare(f"the pipeline of {watcher.name} is not Extended JSON: {error}") from error
    return pipeline


def _extended(value: dict[str, Any]) -> Any:
    # $regex is a query operator here, with operators beside it that json_util's reading of old JSON would drop.
    return value if "$regex" in value else json_util.object_hook(value, json_util.RELAXED_JSON_OPTIONS)


def _as_position(document: Mapping[str, Any]) -> Position:
    stream, subject, selection = (document.get(name) for name in ("stream", "subject", "selection"))
    return Position(
        token=_position(document),
        epoch=document.get("epoch"),
        sequence=document.get("sequence"),
        stream_created=document.get("streamCreated"),
        scope=document.get("scope"),
        route=Route(stream, subject, selection) if stream and subject and selection else None,
    )


def _position(document: Mapping[str, Any]) -> str:
    value, row = str(document["value"]), document.get("row")
    return row if isinstance(row, str) and is_row(row) and token_of(row) == value else value
