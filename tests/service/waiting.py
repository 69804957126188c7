"""How a test waits for what a process does."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

POLL_SECONDS = 0.05


async def until(condition: Callable[[], object | Awaitable[object]], what: str, *, within: float = 30.0) -> Any:
    """Return the first true result of `condition` (which may be awaitable); AssertionError after `within` seconds."""
    deadline = time.monotonic() + within
    while True:
        result = condition()
        if inspect.isawaitable(result):
            result = await result
        if result:
            return result
        assert time.monotonic() < deadline, f"not within {within:g} s: {what}"
        await asyncio.sleep(POLL_SECONDS)


def is_stopped(pid: int) -> bool:
    """Whether every thread of a process has stopped (SIGSTOP); not so where it ends meanwhile."""
    try:
        states = [each.read_text().rpartition(")")[2].split()[0] for each in Path(f"/proc/{pid}/task").glob("*/stat")]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return bool(states) and set(states) == {"T"}
