"""Requests that are carried out together: what becomes of one that fails."""

import contextlib
import gc
import weakref
from collections.abc import Sequence

import pytest

from app.domain.errors import StoreUnavailable
from app.mongodb.joined import Joined, Request


async def refuse(requests: Sequence[Request[int]]) -> None:
    del requests
    raise StoreUnavailable("MongoDB cannot be reached")


async def carry_out(requests: Sequence[Request[int]]) -> None:
    for request in requests:
        request.end(7)


async def ask(joined: Joined[Request[int]], asked: list[weakref.ref[Request[int]]]) -> int:
    """As a store asks: the request is a local variable of a frame that the error goes through."""
    request = Request[int](1)
    asked.append(weakref.ref(request))
    joined.ask(request)
    return await request.answer()


async def test_the_answer_is_taken_and_the_request_has_ended() -> None:
    request = Request[int](1)
    Joined[Request[int]](carry_out, name="test").ask(request)
    assert await request.answer() == 7
    assert request.ended


async def test_a_request_that_failed_is_gone_as_soon_as_its_error_is() -> None:
    joined, asked = Joined[Request[int]](refuse, name="test"), list[weakref.ref[Request[int]]]()
    gc.disable()
    try:
        for _ in range(3):
            with contextlib.suppress(StoreUnavailable):  # which `pytest.raises` would go on to know
                pytest.fail(f"it was answered {await ask(joined, asked)}")
        assert [each() for each in asked[:-1]] == [None] * 2  # the task that carries them out may know the last one
    finally:
        gc.enable()
