"""Those who ask at the same moment share a question, and nobody gets an answer older than their own."""

import asyncio

import pytest

from app.domain.errors import SourceUnavailable
from app.mongodb.one_answer import OneAnswer
from tests.unit.deployment import until


class Server:
    """Answers with how often it was asked, when it is let."""

    def __init__(self) -> None:
        self.asked = 0
        self.may_answer = asyncio.Event()
        self.failure: Exception | None = None

    async def answer(self) -> int:
        self.asked += 1
        number = self.asked
        await self.may_answer.wait()
        if self.failure is not None:
            raise self.failure
        return number


async def test_a_question_under_way_is_not_joined_and_those_who_come_meanwhile_share_the_next() -> None:
    server = Server()
    one = OneAnswer("question", server.answer)
    first = [asyncio.create_task(one.ask()) for _ in range(3)]
    await until(lambda: server.asked == 1)
    later = [asyncio.create_task(one.ask()) for _ in range(3)]
    await asyncio.sleep(0)
    server.may_answer.set()
    assert await asyncio.gather(*first) == [1, 1, 1]
    assert await asyncio.gather(*later) == [2, 2, 2]
    assert await one.ask() == 3


async def test_an_error_reaches_all_who_asked_and_the_next_question_is_another_one() -> None:
    server = Server()
    server.failure = SourceUnavailable("gone")
    server.may_answer.set()
    one = OneAnswer("question", server.answer)
    for outcome in await asyncio.gather(one.ask(), one.ask(), return_exceptions=True):
        assert isinstance(outcome, SourceUnavailable)
    server.failure = None
    assert await one.ask() == 2


async def test_who_is_cancelled_leaves_the_question_to_the_others() -> None:
    server = Server()
    one = OneAnswer("question", server.answer)
    first, second = asyncio.create_task(one.ask()), asyncio.create_task(one.ask())
    await until(lambda: server.asked == 1)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    server.may_answer.set()
    assert await second == 1
