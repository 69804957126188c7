"""A real service, and `changewire watchers` as somebody calls it whose environment names that service and its token."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.integration.cli.command import SECRET, Command
from tests.live import Live


@pytest_asyncio.fixture
async def live(mongo_uri: str, nats_url: str, unique: str) -> AsyncIterator[Live]:
    async with Live(mongo_uri, nats_url, unique, CHANGEWIRE_API_TOKEN=SECRET) as live:
        yield live


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A directory without a .env of somebody else's, and no settings of the shell's."""
    monkeypatch.chdir(tmp_path)
    for name in [each for each in os.environ if each.startswith("CHANGEWIRE_")]:
        monkeypatch.delenv(name)
    return tmp_path


@pytest.fixture
def watchers(
    elsewhere: Path, live: Live, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Command:
    monkeypatch.setenv("CHANGEWIRE_URL", live.url)
    monkeypatch.setenv("CHANGEWIRE_API_TOKEN", SECRET)
    return Command("watchers", capfd)
