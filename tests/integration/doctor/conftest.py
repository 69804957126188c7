"""A mongod for the doctor alone: it counts the change streams that are open there.

Other tests leave some on the session's: a scripted "too large" is an error that the server knows nothing of, so that
the cursor stays open on it.
"""

from collections.abc import AsyncIterator

import pytest_asyncio

from app.devservers.servers import MongoServer


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def mongo_server() -> AsyncIterator[MongoServer]:
    async with MongoServer() as server:
        yield server
