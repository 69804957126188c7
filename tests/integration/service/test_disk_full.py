"""NATS has no room left: what waits is said by /healthz and by the watcher's own health, until it is on the stream.

Once with a limit of the server's, which refuses, and once with a file system that is really full, where that can be
mounted. Patience is cut short; what holds it at fifteen seconds is `tests/unit/domain/test_overdue.py`.
"""

import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from app.devservers.servers import NatsServer
from tests.conftest import MakeNats
from tests.live import Live, until

LARGE = "x" * 50_000


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rule about what waits is soon, the one about RETRYING never: what flaps is to be seen by the first alone. An
    acknowledgement that does not come is waited for as over a fast link."""
    monkeypatch.setattr("app.jetstream.sink.ACK_SECONDS", 0.5)
    monkeypatch.setattr("app.jetstream.sink.SLOWEST_BYTES_PER_SECOND", 5_000_000)
    monkeypatch.setattr("app.domain.overdue.PATIENCE_SECONDS", 1.0)
    monkeypatch.setattr("app.control.health.RETRYING_IS_DOWN_SECONDS", 3600.0)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with room for a few messages."""
    place = tmp_path / "disk"
    place.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    try:
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=8m", "changewire-test", str(place)], check=True, capture_output=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a small file system cannot be mounted here: {error}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=False, capture_output=True)


@pytest_asyncio.fixture
async def on_small_disk(small_disk: Path, make_nats: MakeNats) -> AsyncIterator[NatsServer]:
    server = await make_nats(data=small_disk)
    yield server
    await server.close()  # before its disk goes


async def down(live: Live) -> str | None:
    """What /healthz says of the watchers where they are DOWN; the watcher's own health has to agree."""
    watchers = (await live.call("GET", "/healthz")).json()["components"]["watchers"]
    if watchers["status"] == "UP":
        return None
    assert (await live.call("GET", "/watchers/orders/health")).status_code == 503
    return str(watchers["reason"])


async def is_told_until_there_is_room(live: Live, free: str, again: NatsServer | None = None) -> None:
    """Fill the stream, and look at health until `free`, another stream, has given its room back.

    A server whose disk was full writes to the stream once it was started `again`, no sooner."""
    await live.streams.create(free)
    jetstream = live.streams.client.jetstream()
    for _ in range(80):
        await jetstream.publish(f"{free}.x", LARGE.encode())
    await live.add()
    live.insert("first")
    await live.seen("first")
    live.orders.insert_many([{"_id": key, "text": LARGE} for key in range(60)])

    async def refused() -> bool:
        return bool((await live.get("/watchers/orders/status"))["last_error"])

    await until(refused, seconds=40)  # until then the last room is taken, message by message
    reason = await until(lambda: down(live))
    assert "orders: " in reason
    seen: set[str] = set()
    while len(seen) < 2:  # it flaps
        assert await down(live) is not None, f"it is DOWN in any state, after {seen}"
        seen.add((await live.get("/watchers/orders/status"))["state"])
    stored = len(await live.messages())
    assert stored < 61, "the disk was not full"
    await live.streams.api(f"STREAM.DELETE.{free}")
    if again is not None:
        await again.restart()

    await live.seen("first", *map(str, range(60)))

    async def up() -> bool:
        return (await live.call("GET", "/healthz")).status_code == 200

    await until(up)
    await live.call("GET", "/watchers/orders/health", 200)


async def test_a_server_at_its_limit_of_storage(mongo_uri: str, make_nats: MakeNats, unique: str) -> None:
    nats = await make_nats(store_limit=6_500_000)
    async with Live(mongo_uri, nats.url, unique) as live:
        await is_told_until_there_is_room(live, f"FREE_{unique.upper()}")


async def test_a_disk_that_is_full(mongo_uri: str, on_small_disk: NatsServer, unique: str) -> None:
    async with Live(mongo_uri, on_small_disk.url, unique) as live:
        await is_told_until_there_is_room(live, f"FREE_{unique.upper()}", on_small_disk)
