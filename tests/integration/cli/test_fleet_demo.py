"""The demo with many watchers, on its own servers: the failing one is found and repaired, and outages lose nothing."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import nats
import pytest
import pytest_asyncio

from app.cli.demo import Demo
from app.cli.fleet.check import _changes, joined
from app.cli.fleet.story import Pace
from tests.service import until

ROOT = Path(__file__).parents[3]
FAILING = "billing-invoices"
PLACES = {
    "http": r"HTTP interface\s+(http://\S+)/",
    "nats": r"nats-server \S+\s+(nats://\S+)",
    "mongo": r"mongod \S+\s+(mongodb://\S+)",
}


class FleetDemo:
    """A demo under way as a process, and `changewire` beside it."""

    def __init__(self, temporary: Path) -> None:
        self.temporary = temporary
        self.places: dict[str, str] = {}
        self.shown = ""
        self.process: asyncio.subprocess.Process

    async def changewire(self, *arguments: str) -> tuple[int, str]:
        """Run a command; its exit code and what it printed."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("CHANGEWIRE_")}
        servers = {"MONGO_URI": self.places["mongo"], "NATS_URL": self.places["nats"]}
        url = {"CHANGEWIRE_URL": self.places["http"]}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "app", *arguments, cwd=ROOT, env={**environment, **servers, **url},
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        printed, _ = await process.communicate()
        return await process.wait(), printed.decode()

    async def curl(self, method: str, path: str, body: object = None) -> Any:
        """Call the HTTP interface; the answer."""
        data = () if body is None else ("-H", "Content-Type: application/json", "-d", json.dumps(body))
        process = await asyncio.create_subprocess_exec(
            "curl", "-s", "-X", method, *data, self.places["http"] + path, stdout=asyncio.subprocess.PIPE
        )
        answer, _ = await process.communicate()
        return json.loads(answer)


Start = Callable[..., Awaitable[FleetDemo]]


@pytest_asyncio.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    demos: list[FleetDemo] = []
    readers: list[asyncio.Task[None]] = []

    async def read(demo: FleetDemo) -> None:
        assert demo.process.stdout is not None
        while line := (await demo.process.stdout.readline()).decode():
            demo.shown += line
            for place, pattern in PLACES.items():
                if match := re.search(pattern, line):
                    demo.places[place] = match.group(1)

    async def make(*arguments: str) -> FleetDemo:
        demo = FleetDemo(tmp_path / "tmp")
        demo.temporary.mkdir()
        demo.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "app", "demo", "--port", "0", *arguments, cwd=ROOT,
            env={**os.environ, "TMPDIR": str(demo.temporary)}, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        demos.append(demo)
        readers.append(asyncio.create_task(read(demo), name="demo output"))
        await until(lambda: "Ctrl-C stops everything" in demo.shown, f"all is up: {demo.shown}", within=90)
        return demo

    yield make
    for demo in demos:
        if demo.process.returncode is None:
            demo.process.kill()
            await demo.process.wait()
    await asyncio.gather(*readers)


async def by_commands(demo: FleetDemo) -> str:
    found = await until(lambda: listed(demo), f"a watcher is failed: {demo.shown}", within=60)
    assert (await demo.changewire("watchers", "rewind", found, "--at", "earliest", "--yes"))[0] == 0
    assert (await demo.changewire("watchers", "resume", found))[0] == 0
    return str(found)


async def listed(demo: FleetDemo) -> str | None:
    code, printed = await demo.changewire("watchers", "list", "--state", "failed", "--json")
    assert code == 0, printed
    names = [each["name"] for each in json.loads(printed)]
    assert len(names) < 2
    return names[0] if names else None


async def by_calls(demo: FleetDemo) -> str:
    found = await until(lambda: demo.curl("GET", "/watchers?state=failed"), f"failed: {demo.shown}", within=60)
    name = str(found[0]["name"])
    assert "deleted and recreated" in found[0]["status"]["reason"]
    await demo.curl("PUT", f"/watchers/{name}/token", {"at": "earliest"})
    await demo.curl("PUT", f"/watchers/{name}/resume")
    return name


@pytest.mark.long
@pytest.mark.timeout(240)
@pytest.mark.parametrize("repair", [by_commands, by_calls])
async def test_the_failing_watcher_is_found_and_repaired_and_all_is_there_once(
    start: Start, repair: Callable[[FleetDemo], Awaitable[str]]
) -> None:
    demo = await start("--watchers", "6", "--rate", "30")
    name = await repair(demo)
    assert name == FAILING
    last = f"{FAILING} is RUNNING now"
    await until(lambda: last in demo.shown, f"it runs again: {demo.shown}", within=60)
    code, printed = await demo.changewire("verify", name)
    assert code == 0, printed
    connection = await nats.connect(demo.places["nats"])
    run = await connection.jetstream().get_msg("BILLING_INVOICES", seq=1)
    prefix = json.loads(run.data or b"")["documentKey"]["_id"].partition("-")[0]
    found = await _changes(connection.jetstream(), "BILLING_INVOICES", prefix)
    await connection.close()
    keys = joined(found)
    assert len(keys) == len(found) == len(set(keys))
    numbers = [key.number for key in keys if key.number is not None]
    assert numbers[0] == 1
    assert numbers == sorted(numbers)
    demo.process.send_signal(signal.SIGINT)
    async with asyncio.timeout(60):
        assert await demo.process.wait() == 0
    assert "Traceback" not in demo.shown
    assert list(demo.temporary.iterdir()) == []


@pytest.mark.timeout(180)
async def test_all_that_a_person_can_try_is_there(start: Start) -> None:
    demo = await start("--watchers", "6", "--rate", "20")
    watchers = {each["name"]: each for each in await demo.curl("GET", "/watchers")}
    assert len(watchers) == 6
    assert watchers["logistics-shipments"]["status"]["state"] == "PAUSED"
    assert watchers["analytics-clicks"]["status"]["snapshot"]["kind"] == "initial"

    async def letters() -> bool:
        status = await demo.curl("GET", "/watchers/support-tickets/status")
        return bool(status["dead_letters"] == 1)

    await until(letters, "there is a dead letter", within=60)

    async def shares() -> bool:
        return bool((await demo.curl("GET", "/watchers/shop-orders/status"))["reads"] == "shared")

    await until(shares, "it shares a change stream", within=60)
    assert (await demo.changewire("watchers", "resume", "logistics-shipments"))[0] == 0
    await until(lambda: "logistics-shipments is RUNNING now" in demo.shown, f"it is resumed: {demo.shown}")


class Inside(Demo):
    """The demo within this process, whose signals are the tests' own; what it shows is kept."""

    def __init__(self, *, seconds: float | None, pace: Pace) -> None:
        super().__init__(None, 0, 30.0, seconds, 5)
        self.pace = pace
        self.shown: list[str] = []

    def _heed_signals(self) -> None:
        pass

    def show(self, text: str) -> None:
        self.shown.append(text)

    def says(self, pattern: str) -> bool:
        return any(re.search(pattern, text) for text in self.shown)


@pytest.mark.long
@pytest.mark.timeout(240)
async def test_servers_that_are_killed_cost_no_change() -> None:
    demo = Inside(seconds=3600, pace=Pace(first_outage=2, between_outages=5, outage=2, table=2))
    running = asyncio.create_task(demo.run(), name="demo")

    def told(pattern: str) -> Callable[[], bool]:
        return lambda: demo.says(pattern) or running.done()

    await until(told("Ctrl-C stops"), "all is up", within=90)
    for each in ("mongod", "nats-server"):
        await until(told(f"{each} is back"), f"{each} is back", within=60)
    await until(told("changes/s"), "there is a table", within=60)
    demo.stop.set()
    assert await running == 0, demo.shown
    assert demo.says("every write once, in order"), demo.shown


@pytest.mark.timeout(120)
async def test_a_demo_that_is_stopped_while_a_server_is_down_ends_cleanly() -> None:
    demo = Inside(seconds=None, pace=Pace(first_outage=1, outage=60))
    running = asyncio.create_task(demo.run(), name="demo")
    await until(lambda: demo.says("was killed") or running.done(), "a server is down", within=90)
    demo.stop.set()
    assert await running == 0, demo.shown
    assert not any(server.running for server in demo._started)
    assert all(not server.data.exists() for server in demo._started)
