"""A write that has begun ends before its caller does.

Motor runs a command on a thread. Cancelling the task that awaits it leaves the command on its way, and the server may
carry it out much later: after a deletion that was asked for since, for example. So a write goes on where its caller is
cancelled, and the caller waits for its end before it passes the cancellation on. Every write is bounded in time.
"""

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def to_its_end(write: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """Make a method that writes end before it passes a cancellation on, however often it is cancelled."""

    @functools.wraps(write)
    async def whole(*args: P.args, **kwargs: P.kwargs) -> T:
        writing = asyncio.create_task(write(*args, **kwargs), name=f"write:{write.__name__}")
        cancelled: asyncio.CancelledError | None = None
        while not writing.done():
            try:
                await asyncio.wait([writing])
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is None:
            return writing.result()
        if not writing.cancelled():
            writing.exception()  # retrieved, since a cancelled caller has no use for it
        raise cancelled

    return whole
