"""Pre- and post-images of a collection: whether they are kept, and switching them on."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from pymongo.errors import OperationFailure

from app.mongodb.codes import already_exists
from app.mongodb.described import described_by, description

if TYPE_CHECKING:
    from motor.motor_asyncio import AsyncIOMotorDatabase

OPTION: Final[Mapping[str, Any]] = {"changeStreamPreAndPostImages": {"enabled": True}}
OPTION_TEXT: Final = "changeStreamPreAndPostImages: {enabled: true}"
"""The option as a person writes it in mongosh."""


def are_kept(collection: Mapping[str, Any] | None) -> bool:
    """Whether a collection, as `description` returns it, keeps images."""
    options = (collection or {}).get("options") or {}
    return bool(options.get("changeStreamPreAndPostImages", {}).get("enabled"))


async def switch_on(database: "AsyncIOMotorDatabase[Mapping[str, Any]]", name: str) -> None:
    """Create the collection with images, or switch them on where it has none. Raises what pymongo raises."""
    durable = {"writeConcern": {"w": "majority"}}
    try:
        await database.command({"create": name, **OPTION, **durable})
    except OperationFailure as error:
        if not already_exists(error):
            raise
        if not are_kept(description(await database.command(described_by(name)))):
            await database.command({"collMod": name, **OPTION, **durable})
