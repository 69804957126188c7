"""A deployment of fakes and one instance of the service on it, ready; a module may define its own of these names."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from app.control.registry import Registry
from app.domain.errors import PermanentError
from tests.unit.deployment import Fakes, until


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the service does again after a while it does again soon: no fake needs that time to recover."""
    for name, seconds in (
        ("domain.backoff.FIRST_SECONDS", 0.02),
        ("pipeline.standby.LOOK_SECONDS", 0.01),
        ("control.instance.LOOK_SECONDS", 0.01),
        ("control.server_probe.INTERVAL_SECONDS", 0.05),
        ("control.share.LOOK_SECONDS", 0.01),
        ("control.share.ALONE_SECONDS", 0.01),
        ("control.share.BEAT_SECONDS", 0.02),
    ):
        monkeypatch.setattr(f"app.{name}", seconds)
    for kind in PermanentError.__subclasses__():
        if kind.confirm_seconds:
            monkeypatch.setattr(kind, "confirm_seconds", 0.02)


@pytest.fixture
def fakes() -> Fakes:
    return Fakes()


@pytest_asyncio.fixture
async def registry(fakes: Fakes) -> AsyncIterator[Registry]:
    registry = fakes.registry()
    registry.start()
    await until(lambda: registry.ready() is None)
    yield registry
    await registry.close()
