"""An empty fake registry, and a client of the HTTP interface over it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from tests.unit.api.calls import application, client_of
from tests.unit.api.fake_registry import FakeRegistry


@pytest.fixture
def registry() -> FakeRegistry:
    return FakeRegistry()


@pytest_asyncio.fixture
async def client(registry: FakeRegistry) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(application(registry)) as client:
        yield client
