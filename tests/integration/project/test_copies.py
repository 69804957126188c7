"""The examples that keep a copy: it is the collection in the end, whatever dies on the way, and whatever is in it."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from bson import Binary, Decimal128, Int64, ObjectId, json_util
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.datetime_ms import DatetimeMS

from tests.service import Stage, until

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[3]
EXAMPLES = ROOT / "examples"
FILLED = 20_000
ODD: list[dict[str, Any]] = [
    {"_id": "a date after the year 9999", "when": DatetimeMS(253_402_300_800_000)},
    {"_id": "what looks like a type and is none", "value": {"$oid": "x"}, "other": {"$date": "never"}},
    {"_id": "too large for a message", "text": "x" * 1_500_000},
    {"_id": "numbers", "values": [Int64(2**60), 0.1, 1e300, float("inf"), Decimal128("1.10")]},
    {"_id": "zero byte \0 and 💡"},
    {"_id": ObjectId()},
    {"_id": None},
    {"_id": {"a": 1, "b": {"c": "d"}}},
    {"_id": Binary(b"\1\2", 0)},
    {"_id": Decimal128("12.5")},
]


class Copy:
    """A program that copies the stage's stream to a file."""

    def __init__(self, stage: Stage, path: Path, *command: object) -> None:
        self.path = path
        self._command = [str(each) for each in (*command, stage.stream, path, stage.nats_url)]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.path.with_suffix(".log").open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=subprocess.STDOUT)

    def kill(self) -> None:
        assert self._process is not None
        assert self._process.poll() is None, f"it ended by itself:\n{self.said[-2000:]}"
        self._process.kill()
        self._process.wait()

    @property
    def said(self) -> str:
        return self.path.with_suffix(".log").read_text()

    def up_to(self) -> int:
        """The last message that it says it has applied."""
        lines = [line for line in self.said.splitlines() if line.startswith("up to ")]
        return int(lines[-1].split()[2].rstrip(":")) if lines else 0

    async def until_up_to(self, sequence: int) -> None:
        await until(lambda: self.up_to() >= sequence, f"{sequence} messages are applied", within=60)


Documents = dict[tuple[str, str], Any]
"""What a copy holds, or the collection: by namespace and `_id` as JSON, the documents as JSON."""


def in_sqlite(path: Path) -> Documents:
    with closing(sqlite3.connect(path)) as database:
        rows = database.execute("SELECT namespace, id, document FROM documents WHERE document IS NOT NULL").fetchall()
    return {(namespace, plain(key)): json.loads(document) for namespace, key, document in rows}


def plain(key: str) -> str:
    return json.dumps(json.loads(key))


async def there(stage: Stage) -> Documents:
    """What the collection holds, as pymongo writes it as relaxed Extended JSON."""
    exact = CodecOptions(tz_aware=True, datetime_conversion=DatetimeConversion.DATETIME_AUTO)
    found = {}
    async for document in stage.collection.with_options(exact).find():
        text = json_util.dumps(document, json_options=json_util.RELAXED_JSON_OPTIONS)
        found[f"{stage.database}.things", json.dumps(json.loads(text)["_id"])] = json.loads(text)
    return found


async def copied_while_everything_dies(stage: Stage, copy: Copy) -> None:
    """Take a snapshot under load, and kill the program and the service in its middle; return once the program has
    applied all that there is."""
    filled = range(-FILLED, 0)
    await stage.collection.insert_many([*ODD, *({"_id": n, "n": n, "text": "x" * 200} for n in filled)])
    stage._alive.extend(filled)
    service = await stage.service().start()
    await stage.add(service)
    copy.start()
    async with stage.load():
        await service.call("POST", f"/watchers/{stage.watcher}/snapshot", status=202)
        for least in (1_000, 8_000, 16_000):
            await copy.until_up_to(least)
            copy.kill()
            service.kill()
            await service.start()
            copy.start()
        await stage.collection.update_many({"n": None}, {"$set": {"touched": True}})
        await stage.collection.delete_one({"_id": None})

        async def ended() -> bool:
            return ((await service.status(stage.watcher)).get("snapshot") or {}).get("state") == "done"

        await until(ended, "the snapshot is complete", within=60)

    await stage.collection.insert_one({"_id": "the last one"})

    async def applied() -> bool:
        last = await (await stage.nats()).jetstream().get_last_msg(stage.stream, f"{stage.stream}.insert")
        assert last.data is not None
        assert last.seq is not None
        return json.loads(last.data)["documentKey"]["_id"] == "the last one" and copy.up_to() >= last.seq

    await until(applied, "the last change is applied", within=60)
    copy.kill()


async def test_a_copy_in_sqlite_is_the_collection_though_program_and_service_are_killed_in_a_snapshot(
    stage: Stage, tmp_path: Path
) -> None:
    copy = Copy(stage, tmp_path / "copy.db", sys.executable, EXAMPLES / "copy_to_sqlite.py")
    await copied_while_everything_dies(stage, copy)
    assert in_sqlite(copy.path) == await there(stage)
    with closing(sqlite3.connect(copy.path)) as database:
        ((rows, documents),) = database.execute("SELECT rows, documents FROM snapshots").fetchall()
    assert rows == documents >= FILLED - 1_000
    assert f"{rows} of {documents} documents came" in copy.said


async def test_a_copy_in_go_is_the_collection_though_program_and_service_are_killed_in_a_snapshot(
    stage: Stage, tmp_path: Path
) -> None:
    if not os.environ.get("CHANGEWIRE_TEST_GO"):
        pytest.skip("building it takes up to a minute: make examples does it")
    if shutil.which("go") is None:
        pytest.skip("no go here")
    program = tmp_path / "copy"
    building = await asyncio.create_subprocess_exec("go", "build", "-o", program, "./copy", cwd=EXAMPLES / "go")
    async with asyncio.timeout(100):
        assert await building.wait() == 0
    copy = Copy(stage, tmp_path / "copy.db", program)
    await copied_while_everything_dies(stage, copy)
    listed = subprocess.run([program, "--list", copy.path], capture_output=True, text=True, check=True).stdout
    lines = (line.split("\t", 2) for line in listed.splitlines())
    assert {(name, plain(key)): json.loads(document) for name, key, document in lines} == await there(stage)
