"""The demo as a process of its own, for tests."""

import asyncio
import fcntl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest


@asynccontextmanager
async def no_other_demo_starts(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[None]:
    """Two that start at the same moment, in two processes of the test run, find the same ports free."""
    with (tmp_path_factory.getbasetemp().parent / "changewire-demo.lock").open("w") as lock:
        await asyncio.to_thread(fcntl.flock, lock, fcntl.LOCK_EX)
        yield
