"""Stand-ins for the tools that pages call and that a machine of a test need not have: `nats`, `mongodump`,
`mongorestore`. They take the arguments that the pages give, and do the same to the same servers.

`python -m tests.stand_ins nats backup stream ORDERS backup/ORDERS`
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import nats
from nats.aio.client import Client
from nats.js.api import ConsumerConfig

from tests import backups

UNITS = {"d": "days", "h": "hours", "m": "minutes", "s": "seconds"}
SIZES = {"GB": 10**9, "MB": 10**6, "KB": 10**3, "B": 1}


def mongodump(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser("mongodump")
    parser.add_argument("--uri", required=True)
    parser.add_argument("--db", required=True)
    parser.add_argument("--archive", type=Path, required=True)
    given = parser.parse_args(arguments)
    backups.dump(given.uri, [given.db], given.archive)
    return 0


def mongorestore(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser("mongorestore")
    parser.add_argument("--uri", required=True)
    parser.add_argument("--drop", action="store_true", required=True)
    parser.add_argument("--archive", type=Path, required=True)
    given = parser.parse_args(arguments)
    print("restored", *backups.restore(given.uri, given.archive))
    return 0


def nats_command(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser("nats")
    groups = parser.add_subparsers(dest="group", required=True)
    backup = groups.add_parser("backup").add_subparsers(dest="command", required=True)
    one = backup.add_parser("stream")
    one.add_argument("stream")
    one.add_argument("target", type=Path)
    restored = backup.add_parser("restore").add_subparsers(dest="kind", required=True).add_parser("stream")
    restored.add_argument("file", type=Path)
    stream = groups.add_parser("stream").add_subparsers(dest="command", required=True)
    for name in ("info", "rm", "edit"):
        one = stream.add_parser(name)
        one.add_argument("stream")
        one.add_argument("--force", "-f", action="store_true")
    one.add_argument("--max-age")
    one.add_argument("--max-bytes")
    stored = stream.add_parser("get")
    stored.add_argument("stream")
    stored.add_argument("sequence", type=int)
    consumer = groups.add_parser("consumer").add_subparsers(dest="command", required=True)
    for name in ("add", "next", "info"):
        one = consumer.add_parser(name)
        one.add_argument("stream")
        one.add_argument("consumer")
        if name == "next":
            one.add_argument("--count", type=int, default=1)
        if name == "add":
            one.add_argument("--max-pending", type=int)
            one.add_argument("--pull", action="store_true", required=True)
            one.add_argument("--defaults", action="store_true", required=True)
            one.add_argument("--deliver", choices=["all"], required=True)
            one.add_argument("--ack", choices=["explicit"], required=True)
    fetched = groups.add_parser("object").add_subparsers(dest="command", required=True).add_parser("get")
    fetched.add_argument("bucket")
    fetched.add_argument("name")
    fetched.add_argument("-O", dest="output", type=Path, required=True)
    given = parser.parse_args(arguments)
    return asyncio.run(_nats(given))


async def _nats(given: argparse.Namespace) -> int:
    client = await nats.connect(os.environ["NATS_URL"])
    try:
        match given.group, given.command:
            case "backup", "stream":
                await backups.back_up_stream(client, given.stream, given.target)
            case "backup", "restore":
                await backups.restore_stream(client, given.file)
            case "stream", "info":
                print(json.dumps(await _api(client, f"STREAM.INFO.{given.stream}"), indent=1))
            case "stream", "rm":
                await _api(client, f"STREAM.DELETE.{given.stream}")
            case "stream", "edit":
                config = (await _api(client, f"STREAM.INFO.{given.stream}"))["config"]
                config |= {"max_age": _nanoseconds(given.max_age), "max_bytes": _bytes(given.max_bytes)}
                await _api(client, f"STREAM.UPDATE.{given.stream}", config)
            case "stream", "get":
                print(await _api(client, f"STREAM.MSG.GET.{given.stream}", {"seq": given.sequence}))
            case "consumer", "add":
                wanted = ConsumerConfig(durable_name=given.consumer, max_ack_pending=given.max_pending)
                await client.jetstream().add_consumer(given.stream, wanted)
            case "consumer", "info":
                print(await client.jetstream().consumer_info(given.stream, given.consumer))
            case "consumer", "next":
                await _next(client, given)
            case "object", "get":
                store = await client.jetstream().object_store(given.bucket)
                given.output.write_bytes((await store.get(given.name)).data or b"")
    finally:
        await client.close()
    return 0


async def _next(client: Client, given: argparse.Namespace) -> None:
    reader = await client.jetstream().pull_subscribe_bind(given.consumer, given.stream)
    for _ in range(given.count):
        (message,) = await reader.fetch(1, timeout=5)
        print(message.subject, message.data.decode())
        await message.ack_sync()


async def _api(client: Client, endpoint: str, body: object = None) -> dict[str, dict[str, object]]:
    payload = b"" if body is None else json.dumps(body).encode()
    answer: dict[str, dict[str, object]] = json.loads((await client.request(f"$JS.API.{endpoint}", payload)).data)
    if "error" in answer:
        sys.exit(f"nats: {answer['error']}")
    return answer


def _nanoseconds(text: str) -> int:
    return int(timedelta(**{UNITS[text[-1]]: float(text[:-1])}).total_seconds() * 1_000_000_000)


def _bytes(text: str) -> int:
    unit = next(unit for unit in SIZES if text.endswith(unit))
    return int(float(text.removesuffix(unit)) * SIZES[unit])


COMMANDS = {"mongodump": mongodump, "mongorestore": mongorestore, "nats": nats_command}

if __name__ == "__main__":
    sys.exit(COMMANDS[sys.argv[1]](sys.argv[2:]))
