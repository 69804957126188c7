"""How a test waits for what a process does."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

POLL_SECONDS = 0.05
_SOONEST_SECONDS, _LATEST_SECONDS = 0.02, 0.25


def pause(waited: float) -> float:
    """Seconds until a condition is looked at again that was waited for so long: a tenth of that, within bounds. Each
    look costs what others wait for, processor time."""
    return min(_LATEST_SECONDS, max(_SOONEST_SECONDS, waited / 10))


async def until(condition: Callable[[], object | Awaitable[object]], what: str, *, within: float = 30.0) -> Any:
    """Return the first true result of `condition` (which may be awaitable); AssertionError after `within` seconds."""
    begin = time.monotonic()
    while True:
        result = condition()
        if inspect.isawaitable(result):
            result = await result
        if result:
            return result
        waited = time.monotonic() - begin
        assert waited < within, f"not within {within:g} s: {what}"
        await asyncio.sleep(pause(waited))


def is_stopped(pid: int) -> bool:
    """Whether every thread of a process has stopped (SIGSTOP); not so where it ends meanwhile."""
    try:
        states = [each.read_text().rpartition(")")[2].split()[0] for each in Path(f"/proc/{pid}/task").glob("*/stat")]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return bool(states) and set(states) == {"T"}
