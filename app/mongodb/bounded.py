"""A command that may not end on the server: given up after a while, and ended there too.

maxTimeMS does not interrupt JavaScript: a `$function` with an endless loop runs for a minute, though the client has
stopped waiting. Killing the session that it runs in does interrupt it, and every account may kill its own.
"""

import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import pymongo
from pymongo.errors import OperationFailure, PyMongoError, ServerSelectionTimeoutError

from app.mongodb.codes import MAX_TIME_EXPIRED

if TYPE_CHECKING:
    from motor.motor_asyncio import AsyncIOMotorClient, AsyncIOMotorClientSession

KILL_SECONDS: Final = 2.0


async def run_bounded(
    client: "AsyncIOMotorClient[Mapping[str, Any]]", database: str, command: dict[str, Any], *, seconds: float
) -> Mapping[str, Any]:
    """Run a command for so many seconds at most, and return its reply.

    Raises OperationFailure with the code MaxTimeMSExpired where that was not enough, and else what pymongo raises."""
    async with await client.start_session(causal_consistency=False) as session:
        try:
            with pymongo.timeout(seconds):
                reply: Mapping[str, Any] = await client[database].command(command, session=session)
        except PyMongoError as error:
            if not error.timeout or isinstance(error, ServerSelectionTimeoutError):
                raise
            await end_session_on_server(client, session)
            raise OperationFailure(f"it did not end within {seconds:g} s", MAX_TIME_EXPIRED) from error
        return reply


async def end_session_on_server(
    client: "AsyncIOMotorClient[Mapping[str, Any]]", session: "AsyncIOMotorClientSession"
) -> None:
    """End what runs in a session, over a connection of its own. Never raises what pymongo raises."""
    with contextlib.suppress(PyMongoError), pymongo.timeout(KILL_SECONDS):
        await client.admin.command({"killSessions": [{"id": session.delegate.session_id["id"]}]})
