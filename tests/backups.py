"""Backups as the usual tools make them: documents as mongodump writes them, a stream as `nats stream backup` does, and
copies of the directories in which the servers keep their data."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import bson
from bson.raw_bson import RawBSONDocument
from nats.aio.client import Client
from nats.aio.msg import Msg
from pymongo import MongoClient
from pymongo.errors import DuplicateKeyError

from app.devservers.process import Server

CALL_SECONDS = 10
_CHUNK_BYTES = 64 * 1024


def dump(uri: str, databases: list[str], archive: Path) -> None:
    """Write the documents of these databases into a file."""
    with MongoClient[dict[str, Any]](uri) as client, archive.open("wb") as file:
        for database in databases:
            for collection in client[database].list_collection_names():
                raw = client[database].get_collection(collection, codec_options=_RAW)
                file.write(bson.encode({"database": database, "collection": collection}))
                for document in raw.find():
                    file.write(bson.encode({"document": document}))


def restore(uri: str, archive: Path) -> list[str]:
    """Replace the collections that are in the file, and leave others alone. Returns their names.

    As mongorestore does it: a document that somebody else has stored since its collection was dropped stays."""
    place, restored = None, []
    with MongoClient[dict[str, Any]](uri) as client:
        for line in bson.decode_file_iter(archive.open("rb"), codec_options=_RAW):
            if "document" in line:
                assert place is not None
                with contextlib.suppress(DuplicateKeyError):
                    place.insert_one(line["document"])
            else:
                place = client[str(line["database"])][str(line["collection"])]
                place.drop()
                restored.append(place.full_name)
    return restored


_RAW: bson.CodecOptions[RawBSONDocument] = bson.CodecOptions(document_class=RawBSONDocument)


async def back_up_stream(client: Client, stream: str, directory: Path) -> None:
    """Write a stream into a directory, by JetStream's snapshots."""
    chunks: asyncio.Queue[Msg] = asyncio.Queue()
    inbox = client.new_inbox()
    subscription = await client.subscribe(inbox, cb=chunks.put)
    request = {"deliver_subject": inbox, "no_consumers": False, "chunk_size": _CHUNK_BYTES}
    answer = await _ask(client, f"$JS.API.STREAM.SNAPSHOT.{stream}", request)
    directory.mkdir(parents=True)
    (directory / "backup.json").write_text(json.dumps({"config": answer["config"], "state": answer["state"]}))
    with (directory / "stream.tar.s2").open("wb") as file:
        async with asyncio.timeout(CALL_SECONDS):
            while (chunk := await chunks.get()).data:
                file.write(chunk.data)
                if chunk.reply:
                    await chunk.respond(b"")
    await subscription.unsubscribe()


async def restore_stream(client: Client, directory: Path) -> None:
    """Create a stream from what `back_up_stream` has written. There must be none of its name."""
    described = json.loads((directory / "backup.json").read_text())
    answer = await _ask(client, f"$JS.API.STREAM.RESTORE.{described['config']['name']}", described)
    whole = (directory / "stream.tar.s2").read_bytes()
    for at in range(0, len(whole), _CHUNK_BYTES):
        sent = await client.request(answer["deliver_subject"], whole[at : at + _CHUNK_BYTES], timeout=CALL_SECONDS)
        assert b"error" not in sent.data, sent.data
    await _ask(client, answer["deliver_subject"])


async def _ask(client: Client, subject: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    payload = b"" if body is None else json.dumps(body).encode()
    answer: dict[str, Any] = json.loads((await client.request(subject, payload, timeout=CALL_SECONDS)).data)
    assert "error" not in answer, answer
    return answer


@asynccontextmanager
async def stopped(server: Server) -> AsyncIterator[Path]:
    """Stop a server for as long as its directory is copied or replaced, which is what is given."""
    await server.stop()
    yield server.data
    await server.start()


def copy(source: Path, target: Path) -> None:
    """Make `target` what `source` is."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
