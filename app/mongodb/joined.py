"""Requests of the same moment, carried out together: one command for all watchers in place of one for each.

What is asked for while a command is under way waits, and goes out with the next one.
"""

import asyncio
import contextvars
import copy
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, TypeVar

from app.domain.errors import ChangewireError, StoreUnavailable

A = TypeVar("A")


class Request(Generic[A]):
    """What somebody waits for. Make it where the event loop runs."""

    def __init__(self, size: int) -> None:
        """`size` is the bytes that it adds to a command, about."""
        self.size = size
        self.begun = False
        """Whether it is part of a command that is sent. Until then it may end without one."""
        self.done: asyncio.Future[A] = asyncio.get_running_loop().create_future()

    async def answer(self) -> A:
        """Wait for the answer. Raises what it was failed with, once.

        That error knows the frames that it went through, and those know this request. Did this go on to know the error,
        nothing of all that would end before a garbage collection, and a watcher meets many errors in an outage."""
        try:
            return await self.done
        except BaseException:
            self.done = asyncio.get_running_loop().create_future()
            self.done.cancel()
            raise

    @property
    def ended(self) -> bool:
        """Whether nobody waits any more, or the answer is there."""
        return self.done.done()

    def end(self, answer: A) -> None:
        """Answer it; nothing where it has ended already."""
        if not self.done.done():
            self.done.set_result(answer)

    def fail(self, error: BaseException) -> None:
        """End it with this error; nothing where it has ended already."""
        if not self.done.done():
            self.done.set_exception(error)


R = TypeVar("R", bound=Request[Any])

MOST = 500
"""Requests in one command."""
MOST_BYTES = 4 * 1024 * 1024
"""Bytes in one command, of the 16 MiB that MongoDB takes: a token may hold 32 kB."""


class Joined(Generic[R]):
    """Runs requests together, in the order in which they came. Its task lives while there are any."""

    def __init__(self, run: Callable[[Sequence[R]], Awaitable[None]], *, name: str, pause: float = 0.0) -> None:
        """`run` ends each request that it is given. `pause` is the least time, in seconds, from the end of one command
        to the next."""
        self._run = run
        self._name = name
        self._pause = pause
        self._waiting: deque[R] = deque()
        self._task: asyncio.Task[None] | None = None

    def ask(self, request: R) -> None:
        """Have a request carried out, by a command that is sent after this call."""
        self._waiting.append(request)
        if self._task is None:
            # In a context of its own: else the time that the first one has left would bound the commands of all.
            self._task = asyncio.create_task(self._work(), name=self._name, context=contextvars.Context())

    async def _work(self) -> None:
        """Carry out what waits, and end. Whatever ends it, nobody is left waiting."""
        taken: list[R] = []
        try:
            await asyncio.sleep(0)  # others of the same moment are about to ask
            while self._waiting:
                taken = self._take()
                try:
                    await self._run(taken)
                except Exception as error:  # noqa: BLE001 - whatever it is, those who wait get it
                    for request in taken:
                        request.fail(of_ones_own(error))
                await asyncio.sleep(self._pause if len(self._waiting) < MOST else 0)
        finally:
            self._task = None
            for request in (*taken, *self._waiting):
                request.fail(StoreUnavailable("the service is stopping"))
            self._waiting.clear()

    def _take(self) -> list[R]:
        taken: list[R] = []
        size = 0
        while self._waiting and len(taken) < MOST and (not taken or size + self._waiting[0].size <= MOST_BYTES):
            request = self._waiting.popleft()
            if not request.ended:
                request.begun = True
                taken.append(request)
                size += request.size
        return taken


def of_ones_own(error: Exception) -> Exception:
    """Return a copy of an error that several get: each notes in its own what became of it."""
    if not isinstance(error, ChangewireError):
        return error
    own = copy.copy(error)
    own.__cause__ = error.__cause__
    return own
