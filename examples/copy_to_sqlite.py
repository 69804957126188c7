"""Keep a copy of what a watcher publishes in SQLite: the changes, and the rows of its snapshots.

    python examples/copy_to_sqlite.py STREAM copy.db [nats://127.0.0.1:4222]

The documents and the place on the stream are stored in one transaction. So after any crash the program continues with
the first message that it has not applied, and none is applied twice. It asks NATS for the messages after its place, and
leaves no consumer behind.

A row needs no code of its own: like an insert or an update it has the document as it is at that place. A rewind, or the
replay of a dead letter, brings old changes after newer ones. So of a document's messages the one with the greatest
position wins: positions compare as text in the order of MongoDB's history.
"""

import asyncio
import contextlib
import json
import sqlite3
import sys
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import nats
import nats.errors
import nats.js.errors
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

# A power cut may take the last transactions away, but never a part of one: place and documents still agree, and the
# messages after the place come again.
TABLES = """
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = NORMAL;
    CREATE TABLE IF NOT EXISTS documents (
        namespace TEXT, id TEXT, position TEXT NOT NULL, document TEXT, PRIMARY KEY (namespace, id)
    );
    CREATE TABLE IF NOT EXISTS place (stream TEXT PRIMARY KEY, created TEXT, sequence INTEGER);
    CREATE TABLE IF NOT EXISTS snapshots (run TEXT PRIMARY KEY, rows INTEGER, documents INTEGER);
"""
# A deleted document leaves its row without a document, so that an older change that comes again is recognised.
STORE = """
    INSERT INTO documents VALUES (?, ?, ?, ?)
    ON CONFLICT (namespace, id) DO UPDATE SET position = excluded.position, document = excluded.document
    WHERE excluded.position > documents.position
"""
COUNT = "INSERT INTO snapshots VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET rows = rows + excluded.rows, documents = ?"
HAVE_DOCUMENTS = ("insert", "update", "replace", "delete", "snapshot")


async def whole(jetstream: JetStreamContext, message: Msg) -> dict[str, Any]:
    """Return the change event of a message. It stays JSON: what a document holds need not fit into a driver's types."""
    body, pointer = message.data, (message.headers or {}).get("Changewire-Object")
    if pointer is not None:
        bucket, _, name = pointer.partition("/")
        body = (await (await jetstream.object_store(bucket)).get(name)).data or b""
    event: dict[str, Any] = json.loads(body)
    return event


def apply(copy: sqlite3.Connection, message: Msg, event: dict[str, Any]) -> str:
    """Apply one message, and return a word for what it was."""
    headers = message.headers or {}
    operation, run = event["operationType"], headers.get("Changewire-Snapshot")
    if "Changewire-Gap" in headers:
        copy.execute("DELETE FROM documents")
        copy.execute("DELETE FROM snapshots")
        print(f"changes are missing here ({headers['Changewire-Gap']}): the copy is empty; take a snapshot", flush=True)
        return "gap"
    if operation == "snapshot_done":
        count = event["snapshot"]["documents"]
        copy.execute(COUNT, (run, 0, count, count))
        (rows,) = copy.execute("SELECT rows FROM snapshots WHERE run = ?", (run,)).fetchone()
        print(f"snapshot {run} is complete: {rows} of {count} documents came", flush=True)
        return operation
    if operation not in HAVE_DOCUMENTS:
        print(f"{message.subject} is not applied", flush=True)
        return operation
    if operation == "snapshot":
        copy.execute(COUNT, (run, 1, None, None))
    # The key of a sharded collection has more fields in a change than in a row: the `_id` is what both have.
    namespace, key = f"{event['ns']['db']}.{event['ns']['coll']}", json.dumps(event["documentKey"]["_id"])
    if "fullDocument" in headers.get("Changewire-Reduced", "").split(", "):
        print(f"{key} of {namespace} is too large to send; look it up in MongoDB", flush=True)
        return "reduced"
    if operation == "update" and "fullDocument" not in event:
        sys.exit("an update comes without its document: set the watcher's source.full_document to updateLookup")
    document = event.get("fullDocument")  # none on a delete; null if it was deleted before the lookup
    text = None if document is None else json.dumps(document)
    stored = copy.execute(STORE, (namespace, key, event["_id"]["_data"], text)).rowcount
    return operation if stored else "known already"


async def place(jetstream: JetStreamContext, stream: str, copy: sqlite3.Connection) -> int:
    """Return the sequence of the last message that is applied. A stream that was recreated begins with 1 again."""
    created = str((await jetstream.stream_info(stream)).created)
    stored = copy.execute("SELECT created, sequence FROM place WHERE stream = ?", (stream,)).fetchone()
    if stored is not None and stored[0] == created:
        return int(stored[1])
    with copy:
        copy.execute("INSERT OR REPLACE INTO place VALUES (?, ?, 0)", (stream, created))
        copy.execute("DELETE FROM snapshots")
    return 0


Batch = list[tuple[Msg, dict[str, Any]]]


async def batches(jetstream: JetStreamContext, stream: str, copy: sqlite3.Connection) -> AsyncIterator[Batch]:
    """Yield the messages after the copy's place with their events, in order, indefinitely. Each batch is applied before
    the next is asked for. If the consumer or a message gets lost, another consumer begins after the place."""
    while True:
        consumer = None
        try:
            config = ConsumerConfig(
                deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
                opt_start_seq=await place(jetstream, stream, copy) + 1,
                ack_policy=AckPolicy.NONE,
                inactive_threshold=60,
                mem_storage=True,
            )
            consumer = await jetstream.pull_subscribe("", stream=stream, config=config)
            came, complete = 0, True
            while complete:
                try:
                    batch = await consumer.fetch(1000, timeout=5)
                except nats.errors.TimeoutError:
                    await consumer.consumer_info()  # fails if it is gone
                    continue
                in_order = [each for n, each in enumerate(batch, came + 1) if each.metadata.sequence.consumer == n]
                came, complete = came + len(in_order), len(in_order) == len(batch)
                if in_order:
                    yield [(message, await whole(jetstream, message)) for message in in_order]
        except (nats.errors.Error, nats.js.errors.Error, OSError) as error:
            print(f"{stream} cannot be read, trying again: {error}", file=sys.stderr, flush=True)
            await asyncio.sleep(1)
        finally:
            if consumer is not None:
                with contextlib.suppress(nats.errors.Error):
                    await consumer.unsubscribe()


async def quiet(_: Exception) -> None:
    """`batches` says what is wrong."""


async def main(stream: str, path: str, url: str = "nats://127.0.0.1:4222") -> None:
    copy = sqlite3.connect(path)
    copy.executescript(TABLES)
    connection = await nats.connect(url, max_reconnect_attempts=-1, error_cb=quiet)
    jetstream = connection.jetstream()
    async for batch in batches(jetstream, stream, copy):
        last = batch[-1][0].metadata.sequence.stream
        with copy:  # one transaction: all of these and the place after them, or nothing
            what = Counter(apply(copy, message, event) for message, event in batch)
            copy.execute("UPDATE place SET sequence = ? WHERE stream = ?", (last, stream))
        print(f"up to {last}:", ", ".join(f"{count} {each}" for each, count in what.items()), flush=True)


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    try:
        asyncio.run(main(*sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit()
