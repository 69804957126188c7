"""`changewire watchers snapshot`, and what the other commands say of a snapshot."""

from __future__ import annotations

import asyncio
import os
import pty
import sys
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from app.cli import snapshot_progress
from tests.integration.cli.command import SECRET, Command
from tests.live import Live, until
from tests.service import ROOT


@pytest_asyncio.fixture
async def live(mongo_uri: str, nats_url: str, unique: str) -> AsyncIterator[Live]:
    async with Live(mongo_uri, nats_url, unique, CHANGEWIRE_API_TOKEN=SECRET) as live:
        yield live


@pytest.fixture
def watchers(live: Live, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Command:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CHANGEWIRE_URL", live.url)
    monkeypatch.setenv("CHANGEWIRE_API_TOKEN", SECRET)
    monkeypatch.setattr(snapshot_progress, "LOOK_SECONDS", 0.05)
    return Command("watchers", capfd)


async def test_one_is_begun_shown_cancelled_and_followed(watchers: Command, live: Live) -> None:
    live.insert(1, 2)
    await live.add(paused=True)
    assert "snapshot" not in await watchers("list")
    begun = await watchers("snapshot", "orders", "--filter", '{"_id": 1}')
    run = (await live.get("/watchers/orders/status"))["snapshot"]["run"]
    assert begun == f"orders: snapshot {run}: 0 documents; it waits: the watcher is PAUSED\n"
    assert "waits" in await watchers("list")
    shown = await watchers("show", "orders")
    assert "snapshot.run" in shown
    assert run in shown
    assert "is running already" in await watchers("snapshot", "orders", code=1)
    assert await watchers("snapshot", "orders", "--cancel") == (
        f"orders: snapshot {run}: cancelled, 0 documents: somebody has cancelled it\n"
    )
    assert "cancelled" in await watchers("list")
    assert "no snapshot of orders is running" in await watchers("snapshot", "orders", "--cancel", code=1)
    await live.resume()
    followed = await watchers("snapshot", "orders", "--collection", f"{live.database}.{live.collection}", "--follow")
    assert followed.splitlines()[-1] == "orders: done, 2 of about 2 documents"
    await live.seen("snapshot 1", "snapshot 2", "snapshot_done None")
    assert (await watchers.json("snapshot", "orders"))["state"] == "running"


async def test_one_that_runs_already_is_followed_and_its_end_is_the_exit_code(
    watchers: Command, live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    follow, begun = snapshot_progress.follow, threading.Event()

    def noted(name: str, run: str, ask: Callable[[], Mapping[str, Any]]) -> int:
        begun.set()
        return follow(name, run, ask)

    monkeypatch.setattr(snapshot_progress, "follow", noted)
    await live.add(paused=True)
    run = (await live.call("POST", "/watchers/orders/snapshot", 202)).json()["run"]
    following = asyncio.create_task(watchers("snapshot", "orders", "--follow", code=1))
    await until(begun.is_set)
    assert (await live.call("DELETE", "/watchers/orders/snapshot", 202)).json()["run"] == run
    assert await following == ""
    await live.call("POST", "/watchers/orders/snapshot", 202)
    refused = await watchers("snapshot", "orders", "--filter", '{"a": 1}', "--follow", code=1)
    assert "is running already" in refused


async def test_what_is_wrong_is_said_in_a_line(watchers: Command, live: Live) -> None:
    await live.add(paused=True)
    assert "--filter is not JSON" in await watchers("snapshot", "orders", "--filter", "{", code=2)
    assert "filter: is refused by MongoDB" in await watchers("snapshot", "orders", "--filter", '{"$x": 1}', code=1)
    assert "collections.0: " in await watchers("snapshot", "orders", "--collection", "nobody", code=1)
    assert "--cancel takes no other option" in await watchers("snapshot", "orders", "--cancel", "--follow", code=2)
    assert "give either --follow or --json" in await watchers("snapshot", "orders", "--follow", "--json", code=2)
    assert "there is no watcher nobody" in await watchers("snapshot", "nobody", code=1)


async def test_a_watcher_may_be_added_with_one(watchers: Command, live: Live) -> None:
    live.insert(1)
    add = ("add", "orders", "--database", live.database, "--collection", live.collection, "--stream", live.stream)
    assert "is not one of" in await watchers(*add, "--snapshot", "always", code=2)
    await watchers(*add, "--snapshot", "initial")
    await live.seen("snapshot 1", "snapshot_done None")
    assert (await live.get("/watchers/orders"))["snapshot"] == "initial"


async def test_on_a_terminal_it_is_one_line_that_is_written_again(live: Live, tmp_path: Path) -> None:
    live.insert(1, 2)
    await live.add(paused=True)
    mine, its = pty.openpty()
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "CHANGEWIRE_URL": live.url, "CHANGEWIRE_API_TOKEN": SECRET,
    }  # fmt: skip
    command = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "app", "watchers", "snapshot", "orders", "--follow",
        stdout=its, stdin=its, env=environment, cwd=tmp_path,
    )  # fmt: skip
    os.close(its)
    shown = b""

    async def read_until(text: bytes) -> None:
        nonlocal shown
        async with asyncio.timeout(30):
            while text not in shown:
                shown += await asyncio.to_thread(os.read, mine, 4096)

    await read_until(b"orders: 0 documents; it waits: the watcher is PAUSED")
    await live.resume()
    await read_until(b"orders: done, 2 of about 2 documents\r\n")
    assert await command.wait() == 0
    os.close(mine)
    assert shown.count(b"\n") < 5, "the line is written again in its place"
