"""One question to the server for everybody who asks it at the same moment.

A thousand watchers that open at once would each ask the same: the server's time, the registry's revision, which other
instances live. While one question is under way, the next one gathers those who ask it. So nobody gets an answer that is
older than their own question, and however many ask, two questions are waited for at the most.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import Context
from typing import Generic, TypeVar

T = TypeVar("T")


class OneAnswer(Generic[T]):
    """The answers to one question. Make it where the event loop runs."""

    def __init__(self, name: str, question: Callable[[], Awaitable[T]]) -> None:
        """`name` is that of the tasks that ask."""
        self._name = name
        self._question = question
        self._gathering: asyncio.Task[T] | None = None
        """The question that is not sent yet."""
        self._one_at_a_time = asyncio.Lock()

    async def ask(self) -> T:
        """Return the answer to a question that is sent from now on. Raises what the question raises.

        Who is cancelled leaves the question to the others."""
        if self._gathering is None:
            # Without the caller's context, which may hold a time limit or a pin of its own.
            self._gathering = asyncio.create_task(self._put(), name=self._name, context=Context())
            self._gathering.add_done_callback(_look_at)
        return await asyncio.shield(self._gathering)

    async def _put(self) -> T:
        async with self._one_at_a_time:
            self._gathering = None
            return await self._question()


def _look_at(ended: "asyncio.Task[T]") -> None:
    """Take note of how it ended, also where nobody waits for it any more."""
    if not ended.cancelled():
        ended.exception()
