"""What most people would write: a change stream, and one awaited publish after the other. `python -m bench.single`.

The baseline. It reads MONGO_URI, NATS_URL and CONFIG_FILE like any peer (`others.py`). Its position is stored once a
second and at the end, not after every event as it should be, which is in its favour: a crash would repeat a second.
"""

import asyncio
import contextlib
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import nats
from bson.json_util import RELAXED_JSON_OPTIONS, dumps
from motor.motor_asyncio import AsyncIOMotorClient
from nats.js import JetStreamContext

STORE_SECONDS = 1


async def relay(client: AsyncIOMotorClient, stream: JetStreamContext, place: dict[str, Any]) -> None:
    """Publish the changes of one collection, from where it stopped, until it is cancelled."""
    await stream.add_stream(name=place["streamName"], subjects=[f"{place['streamName']}.*"])
    tokens = client[place["tokensDbName"]][place["tokensCollName"]]
    stored = await tokens.find_one({"_id": "position"})
    token: dict[str, Any] | None = stored and stored["token"]

    async def store() -> None:
        if token is not None:
            await tokens.replace_one({"_id": "position"}, {"token": token}, upsert=True)

    collection = client[place["dbName"]][place["collName"]]
    due = time.monotonic() + STORE_SECONDS
    try:
        async with collection.watch(full_document="updateLookup", resume_after=token) as changes:
            async for change in changes:
                await stream.publish(
                    f"{place['streamName']}.{change['operationType']}",
                    dumps(change, json_options=RELAXED_JSON_OPTIONS).encode(),
                    headers={"Nats-Msg-Id": change["_id"]["_data"]},
                )
                token = change["_id"]
                if time.monotonic() > due:
                    await store()
                    due = time.monotonic() + STORE_SECONDS
    finally:
        await store()


async def main() -> None:
    """Capture all collections of the file until SIGTERM."""
    config = json.loads(Path(os.environ["CONFIG_FILE"]).read_text())  # the bench's own is JSON
    client: AsyncIOMotorClient = AsyncIOMotorClient(os.environ["MONGO_URI"])
    bus = await nats.connect(os.environ["NATS_URL"])
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(bus.close)
        tasks = [
            asyncio.create_task(relay(client, bus.jetstream(), place), name=place["streamName"])
            for place in config["connector"]["collections"]
        ]
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, lambda: [task.cancel() for task in tasks])
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks)


if __name__ == "__main__":
    asyncio.run(main())
