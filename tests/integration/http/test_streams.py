"""Streams looked at over HTTP: messages as they arrive, followers who leave, and a stop that does not wait for them."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest_asyncio

from app.control.stream_browser import MOST_FOLLOWERS
from tests.live import Live, until

MESSAGES = "/watchers/orders/messages"


@pytest_asyncio.fixture
async def service(mongo_uri: str, nats_url: str, unique: str) -> AsyncIterator[Live]:
    async with Live(mongo_uri, nats_url, unique) as live:
        yield live


async def events(answer: httpx.Response) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    name = ""
    async for line in answer.aiter_lines():
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))


async def test_messages_arrive_as_they_are_on_the_stream(service: Live) -> None:
    await service.add()
    service.insert(1, 2, 3)
    await service.seen("1", "2", "3")
    async with asyncio.timeout(20), service.http.stream("GET", f"{MESSAGES}?last=2") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        seen = events(answer)
        got = [await anext(seen) for _ in range(2)]
        service.insert(4)
        got.append(await anext(seen))
    there = (await service.seen("1", "2", "3", "4"))[1:]
    assert [name for name, _ in got] == ["message"] * 3
    assert [(each["sequence"], each["subject"], each["id"], each["body"]) for _, each in got] == [
        (message.sequence, message.subject, message.id, message.body) for message in there
    ]


async def test_follower_who_leaves_makes_room_and_a_head_takes_none(service: Live) -> None:
    await service.add()
    async with AsyncExitStack() as followers:
        for _ in range(MOST_FOLLOWERS):
            await followers.enter_async_context(service.http.stream("GET", MESSAGES))
        assert "followed already" in await service.refused(503, "GET", MESSAGES)

    async def room() -> bool:
        return (await service.http.head(MESSAGES)).status_code == 200

    await until(room)
    for _ in range(MOST_FOLLOWERS + 1):
        assert await room()


async def test_stop_ends_what_is_followed_without_cutting_it_off(service: Live) -> None:
    await service.add()
    service.insert(1)
    async with asyncio.timeout(20), service.http.stream("GET", MESSAGES) as answer:
        lines = answer.aiter_lines()
        assert [await anext(lines) for _ in range(3)] == [": still here", "", "event: message"]
        service.shut()
        assert "" in [line async for line in lines]  # cut off, it would raise


async def test_stream_and_its_consumers_are_told(service: Live) -> None:
    await service.add()
    service.insert(1, 2)
    await service.seen("1", "2")
    await service.streams.api(
        f"CONSUMER.CREATE.{service.stream}.mails",
        {
            "stream_name": service.stream,
            "config": {
                "durable_name": "mails",
                "name": "mails",
                "ack_policy": "explicit",
                "filter_subject": f"{service.stream}.insert",
            },
        },
    )
    told = await service.get("/watchers/orders/stream")
    assert (told["name"], told["subjects"], told["replicas"]) == (service.stream, [f"{service.stream}.*"], 1)
    assert (told["messages"], told["first_sequence"], told["last_sequence"]) == (2, 1, 2)
    (consumer,) = told["consumers"]
    assert (consumer["name"], consumer["durable"], consumer["pending"]) == ("mails", True, 2)
    assert consumer["filter_subjects"] == [f"{service.stream}.insert"]
