"""An empty fake registry, and a client of the HTTP interface over it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio
from fastapi import FastAPI

from tests.unit.api.calls import application, client_of
from tests.unit.api.fake_registry import FakeRegistry


@pytest.fixture
def registry() -> FakeRegistry:
    return FakeRegistry()


@pytest.fixture(scope="session")
def shared_application() -> FastAPI:
    """One application for all tests that need no settings of their own: its routes take long to make."""
    return application(FakeRegistry())


@pytest_asyncio.fixture
async def client(registry: FakeRegistry, shared_application: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    shared_application.state.registry = registry
    async with client_of(shared_application) as client:
        yield client
