"""Whether a collection can hold a watcher's position, looked at before the watcher is added. Nothing is changed.

What cannot work later is a problem of a field now: rights that the account lacks, another kind of collection, a size
into which no position fits, documents of another kind.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from pymongo import ASCENDING, DESCENDING
from pymongo.errors import ExecutionTimeout

from app.domain.checkpoint_place import CheckpointPlace
from app.domain.errors import FieldProblem, StoreUnavailable
from app.mongodb.errors import where_allowed
from app.mongodb.owned import FOREIGN
from app.mongodb.privileges import Privileges

if TYPE_CHECKING:
    from motor.motor_asyncio import AsyncIOMotorCollection, AsyncIOMotorDatabase

LEAST_BYTES: Final = 4096
"""The least size of a capped collection in which the newest position and the one before have room. It is also what
MongoDB made of anything smaller before 6.0; since then it makes as little as 256 bytes, into which none fits."""
_LOOK_MS: Final = 2_000
"""How long a collection is searched for a document that is no position: mongodb-nats-connector's may hold a token for
each change ever made. One that is not found by then stays as it is all the same, since every write has its filter."""
_NEEDED: Final = ("find", "listCollections", "insert", "update")


async def problem_of(
    database: "AsyncIOMotorDatabase[Mapping[str, Any]]",
    collection: "AsyncIOMotorCollection[Mapping[str, Any]]",
    place: CheckpointPlace,
) -> FieldProblem | None:
    """Say which field of `checkpoint` leads to a place that cannot hold the position, or return None.

    Raises what pymongo raises, and StoreUnavailable."""
    lacking = await _lacking(database, place, _NEEDED)
    if lacking is not None:
        return lacking
    there = await (await database.list_collections(filter={"name": place.collection})).to_list(None)
    if not there:
        if not place.capped:
            return None
        if place.size_in_bytes < LEAST_BYTES:
            return _problem(
                "size_in_bytes", f"is too small for a position; give the collection {LEAST_BYTES} bytes or more"
            )
        return await _lacking(database, place, ("createCollection",))
    problem = _problem_of_existing(there[0], place)
    if problem is None and await is_shared(collection):
        problem = _problem(
            "collection", f"holds documents that are no positions ({place.namespace} is somebody else's); name another "
            "collection"
        )  # fmt: skip
    return problem


async def problem_of_all(database: "AsyncIOMotorDatabase[Mapping[str, Any]]", collection: str) -> FieldProblem | None:
    """As `problem_of`, of the collection in the state database that holds the positions of many watchers."""
    place = CheckpointPlace(database.name, collection)
    lacking = await _lacking(database, place, _NEEDED)
    if lacking is not None:
        return lacking
    there = await (await database.list_collections(filter={"name": collection})).to_list(None)
    return _problem_of_existing(there[0], place, may_be_capped=False) if there else None


def _problem_of_existing(
    described: Mapping[str, Any], place: CheckpointPlace, *, may_be_capped: bool = True
) -> FieldProblem | None:
    """`described` is what listCollections says of the collection."""
    kind, options = described.get("type", "collection"), described.get("options") or {}
    if kind != "collection":
        return _problem("collection", f"is a {kind}, which cannot hold a position; name another collection")
    if place.capped and not options.get("capped"):
        return _problem(
            "capped", f"is true, but {place.namespace} exists and is not capped; set it to false, or name another "
            "checkpoint.collection"
        )  # fmt: skip
    if options.get("capped") and not may_be_capped:
        return _problem(
            "collection", f"is {place.namespace} by default, which is capped, so that no position may grow in it; make "
            "it an ordinary collection, or name another checkpoint.collection"
        )  # fmt: skip
    if options.get("capped") and options["size"] < LEAST_BYTES:
        return _problem(
            "collection", f"is capped at {options['size']} bytes, which is too small for a position; name another "
            f"collection, or make it {LEAST_BYTES} bytes or larger"
        )  # fmt: skip
    return None


async def is_shared(collection: "AsyncIOMotorCollection[Mapping[str, Any]]") -> bool:
    """Whether a collection holds a document that is no position, as far as that can be found in a short time."""
    order = "$natural" if (await collection.options()).get("capped") else "_id"
    for direction in (ASCENDING, DESCENDING):  # what else is in it has a first and a last document
        end = await collection.find_one({}, {"_id": 1}, sort=[(order, direction)])
        if end is not None and await collection.find_one({"_id": end["_id"], **FOREIGN}) is not None:
            return True
    try:
        return await collection.find_one(FOREIGN, {"_id": 1}, max_time_ms=_LOOK_MS) is not None
    except ExecutionTimeout:
        return False


async def _lacking(
    database: "AsyncIOMotorDatabase[Mapping[str, Any]]", place: CheckpointPlace, actions: tuple[str, ...]
) -> FieldProblem | None:
    missing: list[str] = []  # where the account may not ask, the first use will tell
    with where_allowed("asking what the account may do", kind=StoreUnavailable):
        status = await database.client.admin.command({"connectionStatus": 1, "showPrivileges": True})
        missing = Privileges(status).missing(place.database, place.collection, actions)
    if not missing:
        return None
    return _problem(
        "database",
        f"cannot keep the position: the MongoDB account lacks {', '.join(missing)} on {place.namespace}; grant it "
        f"readWrite on {place.database}",
    )


def _problem(field: str, problem: str) -> FieldProblem:
    return FieldProblem(f"checkpoint.{field}", problem)
