"""Read a Changewire stream in order from its beginning, and print a line per change.

    python examples/consume.py STREAM [nats://127.0.0.1:4222]

A change too large for a message arrives as a pointer to the object store (`Changewire-Object`), in its place in the
order. `whole` shows the six lines that a consumer needs for it.
"""

import asyncio
import json
import sys
from typing import Any

import nats
from nats.aio.msg import Msg
from nats.js import JetStreamContext


async def whole(jetstream: JetStreamContext, message: Msg) -> Any:
    """Return the change event of a message, fetched from the object store if the message is a pointer."""
    pointer = (message.headers or {}).get("Changewire-Object")
    if pointer is None:
        return json.loads(message.data)
    bucket, _, name = pointer.partition("/")
    store = await jetstream.object_store(bucket)
    return json.loads((await store.get(name)).data or b"")


async def main(stream: str, url: str = "nats://127.0.0.1:4222") -> None:
    connection = await nats.connect(url)
    jetstream = connection.jetstream()
    subscription = await jetstream.subscribe(f"{stream}.>", ordered_consumer=True, stream=stream)
    async for message in subscription.messages:
        event = await whole(jetstream, message)
        if "Changewire-Gap" in (message.headers or {}):
            print(message.subject, "changes are missing here:", json.dumps(event), flush=True)
            continue
        print(message.subject, message.metadata.sequence.stream, json.dumps(event.get("documentKey")), flush=True)


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    try:
        asyncio.run(main(*sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit()
