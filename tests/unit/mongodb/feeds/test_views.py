"""Which collections are views: one question for all who ask, and no view where the server says nothing."""

import asyncio
from typing import Any, cast

from bson.timestamp import Timestamp
from pymongo.errors import AutoReconnect, OperationFailure, PyMongoError

from app.domain.tokens import ClusterTime
from app.mongodb.feeds.views import NONE, Seen, Views
from app.mongodb.reach import Reach


class Client(dict[str, "Client"]):
    """A deployment with one database `shop`."""

    def __init__(self) -> None:
        super().__init__(shop=self)
        self.commands: list[dict[str, Any]] = []
        self.views = ["b", "c"]
        self.failure: PyMongoError | None = None

    async def command(self, command: dict[str, Any]) -> dict[str, Any]:
        self.commands.append(command)
        await asyncio.sleep(0)
        if self.failure is not None:
            raise self.failure
        batch = [{"name": name, "type": "view"} for name in self.views]
        return {"cursor": {"id": 0, "firstBatch": batch}, "operationTime": Timestamp(7, 3)}


def of(client: Client) -> Views:
    async def oplog_first(age: float) -> None:
        raise AssertionError(f"nobody asks for it; {age}")

    motor = cast("Any", client)
    return Views(Reach(motor, lambda: motor, oplog_first), "shop")


async def test_it_tells_the_views_and_when_it_saw_them() -> None:
    client = Client()
    assert await of(client).seen() == Seen(frozenset("bc"), ClusterTime(7, 3))
    (command,) = client.commands
    assert command["filter"] == {"type": {"$in": ["view", "timeseries"]}}
    assert command["nameOnly"], "more than names takes a privilege"
    assert command["authorizedCollections"]


async def test_a_thousand_that_ask_at_once_are_one_question() -> None:
    client = Client()
    views = of(client)
    answers = await asyncio.gather(*(views.seen() for _ in range(1_000)))
    assert {answer.names for answer in answers} == {frozenset("bc")}
    assert len(client.commands) == 1


async def test_where_the_server_says_nothing_nothing_is_a_view_and_the_next_question_is_sent() -> None:
    client = Client()
    views = of(client)
    for failure in (AutoReconnect("gone"), OperationFailure("not authorized", 13), OperationFailure("odd", 1)):
        client.failure = failure
        assert await views.seen() == NONE
    client.failure = None
    assert (await views.seen()).names == frozenset("bc")
