"""Which collection an event's token belongs to.

A token holds its collection's UUID. Two places know a UUID's name, and each may be closed to the account: the watched
database's list of collections, and the oplog entry of the token's moment. The list comes first where it names the
watched collection. Else the oplog decides, since the collection may since be dropped, created again or renamed; a
neighbour in the list is the last resort.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from bson.binary import UUID_SUBTYPE, Binary
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.timestamp import Timestamp

from app.domain.tokens import cluster_time, collection_uuid
from app.domain.watcher import Source
from app.mongodb.errors import where_allowed

if TYPE_CHECKING:
    from motor.motor_asyncio import AsyncIOMotorClient

_LENIENT: Final[CodecOptions[dict[str, Any]]] = CodecOptions(
    datetime_conversion=DatetimeConversion.DATETIME_AUTO, unicode_decode_error_handler="replace"
)
_FIELDS: Final = dict.fromkeys(
    ("ts", "ns", "ui", "o.applyOps.ns", "o.applyOps.ui", "o.drop", "o.create", "o.collMod", "o.renameCollection"), 1
)


async def owner_of(client: "AsyncIOMotorClient[Mapping[str, Any]]", source: Source, token: str) -> str | None:
    """Return the namespace of a token, as far as can be told; None for a high-water mark.

    Raises SourceUnavailable where the server cannot be reached."""
    uuid = collection_uuid(token)
    if uuid is None:
        return None
    binary = Binary(bytes.fromhex(uuid), UUID_SUBTYPE)
    neighbours: list[str] = []
    moment = cluster_time(token)
    ts = Timestamp(moment.seconds, moment.increment)
    entry: Mapping[str, Any] | None = None
    with where_allowed("looking the token up"):  # without an answer the server's own opinion has to do
        if source.database:  # a deployment's watcher has no one list to look at
            found = await client[source.database].command({"listCollections": 1, "filter": {"info.uuid": binary}})
            neighbours = [f"{source.database}.{listed['name']}" for listed in found["cursor"]["firstBatch"]]
        if source.namespace in neighbours:
            return source.namespace
        oplog = client.local.get_collection("oplog.rs", codec_options=_LENIENT)
        entry = await oplog.find_one({"ts": {"$gte": ts}}, _FIELDS, sort=[("$natural", 1)])
    owner = namespace_of(entry, binary) if entry is not None and entry["ts"] == ts else None
    return owner or (neighbours[0] if neighbours else None)


def namespace_of(entry: Mapping[str, Any], uuid: Binary) -> str | None:
    """Return the namespace that an oplog entry (write, transaction, command) gives the collection with this UUID."""
    change = entry.get("o") or {}
    for write in change.get("applyOps", ()):
        if write.get("ui") == uuid:
            return str(write["ns"])
    if entry.get("ui") != uuid:
        return None
    database, _, rest = str(entry["ns"]).partition(".")
    if rest != "$cmd":
        return str(entry["ns"])
    if "renameCollection" in change:
        return str(change["renameCollection"])
    return next((f"{database}.{change[name]}" for name in ("drop", "create", "collMod") if name in change), None)
