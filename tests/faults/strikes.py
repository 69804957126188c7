"""What a fault is to the runner: something done to a testbed for a while, on whom it says itself."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeVar

from tests.faults.testbed import Testbed

T = TypeVar("T", bound=Testbed)

Strike = Callable[[Testbed, random.Random], AbstractAsyncContextManager[str]]


def of(kind: type[T]) -> Callable[[Callable[[T, random.Random], AbstractAsyncContextManager[str]]], Strike]:
    """Such a fault strikes one form's testbed only."""

    def wrap(strike: Callable[[T, random.Random], AbstractAsyncContextManager[str]]) -> Strike:
        @asynccontextmanager
        async def checked(testbed: Testbed, draw: random.Random) -> AsyncIterator[str]:
            assert isinstance(testbed, kind)
            async with strike(testbed, draw) as victim:
                yield victim

        return checked

    return wrap
