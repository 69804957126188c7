"""One shared change stream: what it reads is handed over once, whatever happens to the stream meanwhile."""

import asyncio
import threading
from collections.abc import Sequence

import pytest

from app.domain.errors import SourceUnavailable
from app.domain.parts import Part
from app.domain.tokens import cluster_time
from app.mongodb.feeds import feed, parts
from app.mongodb.feeds.feed import Feed
from app.mongodb.feeds.filters import Filter
from app.mongodb.feeds.room import Room
from app.mongodb.feeds.views import Seen
from tests.unit.mongodb.feeds.scripted import Deployment, Stream


async def test_a_stream_that_resumes_while_a_batch_is_handed_over_brings_nothing_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(feed, "ASIDE_BYTES", 0)
    deployment, resumed = Deployment(), threading.Event()

    class Resuming(Stream):
        async def open(self, after: str) -> None:
            await super().open(after)
            if len(deployment.opened) > 1:
                resumed.set()

    def split(events: Sequence[bytes]) -> list[Part]:
        """Take the first batch apart only when the read ahead has failed, and the stream is open again."""
        resumed.wait(10)
        return parts.split(events)

    def opens(wanted: Filter) -> Stream:
        return Resuming(deployment, wanted=wanted)

    one = Feed("shop", opens, split, deployment.now, lambda: {"a"}, Room())
    await one.begin()
    member = one.attach("shop", "a", one.position)
    for _ in range(3):
        deployment.write("a")
    deployment.trouble = [None, SourceUnavailable("gone for a moment")]
    running = asyncio.create_task(one.run(lambda: True))
    got: list[str] = []
    async with asyncio.timeout(10):
        while len(got) < 4:
            await member.wait(1)
            got += [parts.token_of(raw) for raw in member.take(100).events]
            if len(got) == 3:
                deployment.write("a")
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert deployment.opened == ["*", "*"]
    assert got == deployment.tokens("a")


async def test_nobody_joins_a_feed_from_before_it_covered_their_collection() -> None:
    """What it kept lacks the collection, also while it still closes the stream with the other filter."""
    deployment, closing, closed = Deployment(), asyncio.Event(), asyncio.Event()

    class Slow(Stream):
        async def close(self) -> None:
            if self.is_open:
                closing.set()
                await closed.wait()
            await super().close()

    def opens(wanted: Filter) -> Stream:
        return Slow(deployment, wanted=wanted)

    one = Feed("shop", opens, None, deployment.now, lambda: {"a"}, Room())
    one._filter = Filter(only=frozenset({"a"}))
    await one.begin()
    member, before = one.attach("shop", "a", one.position), one.position
    for name in "ba":
        deployment.write(name)
    running = asyncio.create_task(one.run(lambda: True))
    async with asyncio.timeout(10):
        await member.wait(1)
        assert one.reaches_back <= before
        one.ask("b")
        await closing.wait()
        assert not one.covers("b") or before < one.reaches_back
        closed.set()
        while not one.covers("b"):
            await asyncio.sleep(0)
    assert before < one.reaches_back
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_member_whose_collection_is_a_view_gets_what_came_before_and_is_let_go() -> None:
    deployment = Deployment()
    one = Feed("shop", lambda wanted: Stream(deployment, wanted=wanted), parts.split, deployment.now, set, Room())
    await one.begin()
    began = one.position
    members = [one.attach("shop", name, began) for name in "ab"]
    for _ in range(10):
        deployment.write("a")
    one.found_views(Seen(frozenset("a"), cluster_time(deployment.now)))  # the feed has read nothing of that yet
    running = asyncio.create_task(one.run(lambda: True))
    got: list[str] = []
    async with asyncio.timeout(10):
        while not members[0].ended:
            got += [parts.token_of(raw) for raw in members[0].take(100).events]
            await members[0].wait(1)
    assert members[0].let_go == feed.VIEW
    assert got == deployment.tokens("a", began)
    assert not members[1].ended
    assert one.members == members[1:]
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_who_wants_what_is_listed_only_where_another_filter_may_be_chosen() -> None:
    """With a thousand watchers the list costs more than a read, and it was made before each."""
    deployment, listed = Deployment(), asyncio.Event()

    def wanted() -> set[str]:
        listed.set()
        return {"a"}

    one = Feed("shop", lambda wanted: Stream(deployment, wanted=wanted), None, deployment.now, wanted, Room())
    await one.begin()
    member = one.attach("shop", "a", one.position)
    running = asyncio.create_task(one.run(lambda: True))
    async with asyncio.timeout(10):
        for _ in range(20):
            deployment.write("a")
            while not member.take(100).events:
                await member.wait(1)
        assert not listed.is_set()
        one.ask("b")
        await listed.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
