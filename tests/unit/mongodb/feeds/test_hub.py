"""Whose change stream a watcher gets: its own with the reason, or one that it may share with those of its kind."""

import asyncio
from typing import Any

from motor.motor_asyncio import AsyncIOMotorClient

from app.domain.errors import SourceUnavailable
from app.domain.watcher import Source, Watcher
from app.mongodb.feeds.eligible import why_own
from app.mongodb.feeds.group import ALONE
from app.mongodb.feeds.hub import FeedHub
from app.mongodb.feeds.sharing import SharingSource
from app.mongodb.reach import Reach


def make_hub() -> FeedHub:
    """A hub whose deployment nobody reaches."""
    client: Any = AsyncIOMotorClient("mongodb://127.0.0.1:1", serverSelectionTimeoutMS=1, connect=False)

    async def oplog_first(age: float) -> None:
        raise SourceUnavailable(f"nobody is there; {age}")

    return FeedHub(Reach(client, lambda: client, oplog_first), None, batch_size=10)


def watcher(name: str, **source: Any) -> Watcher:
    return Watcher(name, Source("shop", name, **source))


async def test_one_that_may_not_share_has_a_stream_of_its_own_that_says_why() -> None:
    one = watcher("a", pipeline=({"$match": {"x": 1}},))
    source = make_hub().source(one)
    assert not isinstance(source, SharingSource)
    assert (source.reads.shared, source.reads.why) == (False, why_own(one))


async def test_one_that_may_share_is_alone_until_another_comes() -> None:
    source = make_hub().source(watcher("a"))
    assert isinstance(source, SharingSource)
    assert (source.reads.shared, source.reads.why) == (False, ALONE)


async def test_a_hub_whose_watchers_cannot_be_opened_has_no_members_and_ends() -> None:
    hub = make_hub()
    watchers = [watcher("a"), watcher("b"), watcher("c", full_document="whenAvailable")]
    hub.expect(watchers)
    assert set(hub.members().values()) == {0}
    sources = [hub.source(each) for each in watchers]
    for source in sources:
        await source.close()
    async with asyncio.timeout(10):
        await hub.close()
    assert hub.members() == {}
