"""The names of databases and collections that exist, as far as the account may see them.

MongoDB itself leaves out what the account has no right to (`authorizedDatabases`, `authorizedCollections`), so that no
list says more than the account may read.
"""

import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import pymongo
from bson.int64 import Int64
from pymongo.errors import PyMongoError

from app.mongodb.errors import translated

if TYPE_CHECKING:
    from motor.motor_asyncio import AsyncIOMotorClient

SECONDS: Final = 2.0


async def databases(client: "AsyncIOMotorClient[Mapping[str, Any]]") -> list[str]:
    """Return the databases on which the account has a right. Raises SourceUnavailable, NotAuthorised."""
    with translated("listing the databases", seconds=SECONDS):
        reply = await client.admin.command({"listDatabases": 1, "nameOnly": True, "authorizedDatabases": True})
    return [str(each["name"]) for each in reply["databases"]]


async def collections(
    client: "AsyncIOMotorClient[Mapping[str, Any]]", database: str, most: int
) -> tuple[list[str], bool]:
    """Return collections of a database that have change streams (no views and time series), and whether there are more
    than `most`. Raises SourceUnavailable, NotAuthorised."""
    command = {
        "listCollections": 1,
        "nameOnly": True,
        "authorizedCollections": True,
        "filter": {"type": "collection"},
        "cursor": {"batchSize": most},
    }
    with translated(f"listing the collections of {database}", seconds=SECONDS):
        cursor = (await client[database].command(command))["cursor"]
    if cursor["id"]:
        end = {"killCursors": str(cursor["ns"]).partition(".")[2], "cursors": [Int64(cursor["id"])]}
        with contextlib.suppress(PyMongoError), pymongo.timeout(SECONDS):
            await client[database].command(end)
    return [str(each["name"]) for each in cursor["firstBatch"]], bool(cursor["id"])
