"""`changewire instances` against two real services of one registry."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.integration.cli.command import SECRET, Command
from tests.live import Live, until


def by_name(found: list[dict[str, Any]]) -> dict[str, Any]:
    return {each["name"]: each for each in found}


@pytest_asyncio.fixture
async def live(mongo_uri: str, nats_url: str, unique: str) -> AsyncIterator[Live]:
    async with Live(mongo_uri, nats_url, unique, CHANGEWIRE_API_TOKEN=SECRET, CHANGEWIRE_INSTANCE="a") as live:
        yield live


@pytest.fixture
def instances(
    live: Live, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> Command:
    monkeypatch.chdir(tmp_path)
    for name in [each for each in os.environ if each.startswith("CHANGEWIRE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("CHANGEWIRE_URL", live.url)
    monkeypatch.setenv("CHANGEWIRE_API_TOKEN", SECRET)
    return Command("instances", capfd)


async def live_is_drained(live: Live) -> bool:
    return "warnings" in (await live.get("/healthz"))["components"]["watchers"]


async def test_the_only_instance_is_drained_only_by_force(instances: Command, live: Live) -> None:
    await live.add()
    table = await instances()
    assert table == await instances("list")
    assert table.splitlines()[1].split()[:5] == ["a*", "active", "1", "0", "1"]
    assert "no other instance could run the watchers of a" in await instances("drain", "a", code=1)
    assert "no instance z" in await instances("undrain", "z", code=1)
    assert await instances("drain", "a", "--force") == "a: draining, hands 1 watcher over\n"
    await until(lambda: live_is_drained(live))
    live.insert(1)
    await live.seen("1")  # nobody else is there, so it goes on
    assert "this instance is drained" in (await live.get("/healthz"))["components"]["watchers"]["warnings"][0]
    assert await live.is_ready()  # for requests
    assert await instances("undrain", "a") == "a: active, takes watchers again; it has 1 watcher now\n"


async def test_one_instance_is_drained_through_the_other_and_nothing_is_missing(
    instances: Command, live: Live, mongo_uri: str, nats_url: str, unique: str
) -> None:
    there: dict[str, Any] = {
        "CHANGEWIRE_STATE_DB": live.state_db,
        "CHANGEWIRE_INSTANCE": "b",
        "CHANGEWIRE_API_TOKEN": SECRET,
    }
    async with Live(mongo_uri, nats_url, f"{unique}b", **there) as other:
        await live.add()

        async def owner() -> list[str]:
            return [name for name, each in by_name(await instances.json()).items() if each["watchers"] == 1]

        async def has_moved(to: str) -> bool:
            return await owner() == [to]

        (before,) = await owner()
        after = "b" if before == "a" else "a"
        live.insert(1)
        await instances("--url", other.url, "drain", before)  # any instance may be asked
        await until(lambda: has_moved(after))
        live.insert(2)
        await live.seen("1", "2")
        found = by_name(await instances.json())
        assert (found[before]["state"], found[after]["state"]) == ("draining", "active")
        assert [name for name, each in by_name(await instances.json("--url", other.url)).items() if each["self"]] == [
            "b"
        ]
        await instances("undrain", before)
        assert by_name(await instances.json())[before]["state"] == "active"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("lst",), "no such command 'lst'"),
        (("drain",), "missing argument 'NAME'"),
        (("undrain", "a", "--force"), "no such option"),
        (("--url", "ftp://x"), "the URL must be"),
    ],
)
async def test_misuse_is_one_line_and_two(
    capfd: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    told = await Command("instances", capfd)(*arguments, code=2)
    assert said in told
    assert len(told.splitlines()) == 1, told
