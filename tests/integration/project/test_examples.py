"""The programs under examples/: what a consumer is told to do works on a stream of the service's.

The one in Go is built and run by `make examples` alone (CHANGEWIRE_TEST_GO): its modules and the compiler take more
time than all others together.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import sqlite3
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
import pytest_asyncio
from bson import json_util

from tests.live import Live

ROOT = Path(__file__).parents[3]
EXAMPLES = ROOT / "examples"
TOO_LARGE = "x" * 1_500_000
"""More than a message holds: it goes to the object store."""


@pytest_asyncio.fixture
async def live(mongo_uri: str, nats_url: str, unique: str) -> AsyncIterator[Live]:
    async with Live(mongo_uri, nats_url, unique) as service:
        yield service


class Program:
    """A running example. `lines` gives what it prints next."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        self._out = process.stdout

    async def lines(self, count: int) -> list[str]:
        async with asyncio.timeout(30):
            found = [(await self._out.readline()).decode().rstrip("\n") for _ in range(count)]
        assert all(found), f"it ended after {found}"
        return found

    async def until(self, sequence: int) -> Counter[str]:
        """What it has applied by the time that it is up to a sequence, by the words of lines such as
        `up to 3: 2 insert, 1 delete`."""
        applied: Counter[str] = Counter()
        while True:
            (line,) = await self.lines(1)
            if not (up_to := re.fullmatch(r"up to (\d+): (.*)", line)):
                continue
            for count, what in (each.split(" ", 1) for each in up_to[2].split(", ")):
                applied[what] += int(count)
            if int(up_to[1]) >= sequence:
                return applied


@asynccontextmanager
async def running(*command: object) -> AsyncIterator[Program]:
    """Start an example, and end it as Ctrl-C does."""
    process = await asyncio.create_subprocess_exec(*map(str, command), cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    try:
        yield Program(process)
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(30):
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def mark_a_gap(live: Live) -> None:
    """Put a message like a gap's marker behind the others."""
    headers = {"Changewire-Gap": "history_lost", "Nats-Msg-Id": f"gap-{live.unique}"}
    await live.streams.client.jetstream().publish(f"{live.stream}.gap", b'{"operationType":"gap"}', headers=headers)


def keys(lines: list[str]) -> list[tuple[str, int, object]]:
    """Operation, sequence and key of lines such as `ORDERS.insert 1 {"_id": 7}`."""
    found = []
    for line in lines:
        subject, sequence, key = line.split(" ", 2)
        found.append((subject.partition(".")[2], int(sequence), json.loads(key)["_id"]))
    return found


async def a_history(live: Live) -> list[tuple[str, int, object]]:
    """Make one of each kind of change, one of them too large for a message, and return what has to be printed."""
    await live.add()
    live.insert(1, 2)
    live.orders.insert_one({"_id": 3, "text": TOO_LARGE})
    live.orders.update_one({"_id": 1}, {"$set": {"n": 1}})
    live.orders.delete_one({"_id": 2})
    messages = await live.seen("1", "2", "3", "update 1", "delete 2")
    assert "Changewire-Object" in messages[2].headers
    return [("insert", 1, 1), ("insert", 2, 2), ("insert", 3, 3), ("update", 4, 1), ("delete", 5, 2)]


async def test_consume_prints_every_change_in_order_also_one_too_large_for_a_message(live: Live, nats_url: str) -> None:
    expected = await a_history(live)
    async with running(sys.executable, EXAMPLES / "consume.py", live.stream, nats_url) as program:
        assert keys(await program.lines(5)) == expected
        await mark_a_gap(live)
        assert "changes are missing here" in (await program.lines(1))[0]


async def test_the_copy_is_the_collection_after_restarts_and_a_rewind_and_a_snapshot_fills_it_after_a_gap(
    live: Live, nats_url: str, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.db"
    program = (sys.executable, EXAMPLES / "copy_to_sqlite.py", live.stream, copy, nats_url)

    def is_the_collection() -> bool:
        with closing(sqlite3.connect(copy)) as database:
            rows = database.execute("SELECT document FROM documents WHERE document IS NOT NULL").fetchall()
        return sorted((json_util.loads(text) for (text,) in rows), key=lambda one: one["_id"]) == list(
            live.orders.find().sort("_id", 1)
        )

    await a_history(live)
    async with running(*program) as first:
        assert await first.until(5) == {"insert": 3, "update": 1, "delete": 1}
    assert is_the_collection()

    await live.pause()
    live.orders.insert_one({"_id": 2, "again": True})
    await live.call("PUT", "/watchers/orders/token", 200, json={"at": "earliest"})
    await live.resume()
    async with running(*program) as second:  # the first five once more, in a new epoch, and the sixth after them
        assert await second.until(11) == {"known already": 5, "insert": 1}
        assert is_the_collection()
        await mark_a_gap(live)
        assert "take a snapshot" in (await second.lines(1))[0]
        assert await second.until(12) == {"gap": 1}
        await live.call("POST", "/watchers/orders/snapshot", 202)
        assert await second.until(16) == {"snapshot": 3, "snapshot_done": 1}
    assert is_the_collection()


async def test_the_consumer_in_go_goes_on_where_it_was(live: Live, nats_url: str, tmp_path: Path) -> None:
    if not os.environ.get("CHANGEWIRE_TEST_GO"):
        pytest.skip("building it takes up to a minute: make examples does it")
    if shutil.which("go") is None:
        pytest.skip("no go here")
    program = tmp_path / "consume"
    building = await asyncio.create_subprocess_exec("go", "build", "-o", program, ".", cwd=EXAMPLES / "go")
    async with asyncio.timeout(100):
        assert await building.wait() == 0
    expected = await a_history(live)
    async with running(program, live.stream, nats_url) as first:
        assert keys(await first.lines(5)) == expected
    live.insert(4)
    async with running(program, live.stream, nats_url) as second:
        assert keys(await second.lines(1)) == [("insert", 6, 4)]
        await mark_a_gap(live)
        assert "changes are missing here" in (await second.lines(1))[0]


def test_every_example_is_explained() -> None:
    page = (ROOT / "docs" / "consuming.md").read_text()
    programs = [*EXAMPLES.glob("*.py"), *EXAMPLES.rglob("main.go")]
    linked = set(re.findall(r"\(\.\./(examples/[\w/.]+)\)", page))
    assert {str(path.relative_to(ROOT)) for path in programs} == linked


def test_the_rule_for_what_comes_again_is_the_examples() -> None:
    page = (ROOT / "docs" / "consuming.md").read_text()
    (statement,) = re.findall(r"```sql\n(.*?)```", page, re.DOTALL)
    assert " ".join(statement.split()) in " ".join((EXAMPLES / "copy_to_sqlite.py").read_text().split())
