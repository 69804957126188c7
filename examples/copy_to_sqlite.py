"""Keep a copy of a watched collection in SQLite: a durable consumer unharmed by crashes, repeats and rewinds.

    python examples/copy_to_sqlite.py STREAM copy.db [nats://127.0.0.1:4222]

After a restart it continues after the last change that it has acknowledged. It acknowledges a change after the commit,
so a change may come again. A rewind, or the replay of a dead letter, also brings old changes after newer ones. One rule
covers all of these cases: of a document's changes, the one with the greatest resume token wins, since tokens grow along
the history.
"""

import asyncio
import sqlite3
import sys
from typing import Any

import nats
from bson import json_util
from nats.aio.msg import Msg
from nats.errors import TimeoutError as NothingCame
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

TABLE = "CREATE TABLE IF NOT EXISTS documents (key TEXT PRIMARY KEY, token TEXT NOT NULL, document TEXT)"
# A deleted document leaves its row without a document, so that an older change that comes again is recognised.
STORE = """
    INSERT INTO documents VALUES (?, ?, ?)
    ON CONFLICT (key) DO UPDATE SET token = excluded.token, document = excluded.document
    WHERE excluded.token > documents.token
"""


async def whole(jetstream: JetStreamContext, message: Msg) -> dict[str, Any]:
    """Return the change event of a message with MongoDB's types: ObjectId, datetime, Decimal128, …"""
    body, pointer = message.data, (message.headers or {}).get("Changewire-Object")
    if pointer is not None:
        bucket, _, name = pointer.partition("/")
        body = (await (await jetstream.object_store(bucket)).get(name)).data or b""
    event: dict[str, Any] = json_util.loads(body)
    return event


def apply(copy: sqlite3.Connection, message: Msg, event: dict[str, Any]) -> None:
    headers = message.headers or {}
    if "Changewire-Gap" in headers:
        print("changes are missing here, so read the collection again:", headers["Changewire-Gap"], flush=True)
        return
    if "fullDocument" in headers.get("Changewire-Reduced", "").split(", "):
        print("too large to send; look it up in MongoDB:", event["documentKey"], flush=True)
        return
    document = event.get("fullDocument")  # none on a delete, or if it was deleted before the lookup
    text = None if document is None else json_util.dumps(document)
    key, token = json_util.dumps(event["documentKey"]), event["_id"]["_data"]
    changed = copy.execute(STORE, (key, token, text)).rowcount
    print(message.subject, key, "stored" if changed else "known already", flush=True)


async def main(stream: str, path: str, url: str = "nats://127.0.0.1:4222") -> None:
    copy = sqlite3.connect(path)
    copy.execute(TABLE)
    connection = await nats.connect(url)
    jetstream = connection.jetstream()
    consumer = await jetstream.pull_subscribe(
        ">",
        durable="copy-to-sqlite",
        stream=stream,
        config=ConsumerConfig(ack_policy=AckPolicy.EXPLICIT, deliver_policy=DeliverPolicy.ALL, ack_wait=30),
    )
    while True:
        try:
            messages = await consumer.fetch(100, timeout=5)
        except NothingCame:
            continue
        with copy:  # one transaction: all of these, or none
            for message in messages:
                apply(copy, message, await whole(jetstream, message))
        for message in messages:
            await message.ack()


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    try:
        asyncio.run(main(*sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit()
