"""Following a stream: nothing lost, doubled or late while it can be kept up with, and an end to all of it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from app.control.stream_browser import FAR_BEHIND, MOST_FOLLOWERS, StreamBrowser
from app.control.watcher_task import WatcherTask
from app.domain.errors import NotFound, Unavailable
from app.domain.streams import Quiet, Seen, Skipped, StoredMessage, Trouble
from app.domain.watcher import StoredWatcher
from tests.unit.deployment import ORDERS, Fakes


class Office:
    """A browser over fakes, with one watcher."""

    def __init__(self) -> None:
        self.fakes = Fakes()
        self.stream = self.fakes.stream()
        self.stream.exists = True
        self.there = True
        self.task = self.fakes.task(StoredWatcher(ORDERS))
        self.browser = StreamBrowser(self.fakes.dependencies(), self.find, quiet_seconds=0.0)

    async def find(self, name: str) -> WatcherTask:
        if not self.there:
            raise NotFound(f"there is no watcher {name}")
        return self.task

    def publish(self, count: int = 1) -> None:
        self.stream.neighbour("ORDERS.insert", count)


@pytest.fixture(autouse=True)
def without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.control.stream_browser.PAUSE_SECONDS", 0.001)


@pytest.fixture
def office() -> Office:
    return Office()


async def news(seen: AsyncIterator[Seen]) -> Seen:
    """The next that is not quiet."""
    async with asyncio.timeout(10):
        async for each in seen:
            if not isinstance(each, Quiet):
                return each
    raise AssertionError("it has ended")


async def sequences(seen: AsyncIterator[Seen], count: int) -> list[int]:
    found = [await news(seen) for _ in range(count)]
    assert all(isinstance(each, StoredMessage) for each in found), found
    return [each.sequence for each in found if isinstance(each, StoredMessage)]


async def test_the_last_come_first_and_then_each_that_arrives_once(office: Office) -> None:
    office.publish(5)
    async with aclosing(office.browser.follow("orders", 2)) as seen:
        assert isinstance(await anext(seen), Quiet)
        assert await sequences(seen, 2) == [4, 5]
        office.publish(120)
        assert await sequences(seen, 120) == list(range(6, 126))
        office.publish()
        assert await sequences(seen, 1) == [126]


async def test_with_none_of_the_past_only_what_arrives_comes(office: Office) -> None:
    office.publish(5)
    async with aclosing(office.browser.follow("orders", 0)) as seen:
        assert isinstance(await anext(seen), Quiet)
        assert isinstance(await anext(seen), Quiet)
        office.publish()
        assert await sequences(seen, 1) == [6]


async def test_who_falls_far_behind_is_taken_to_the_end_and_told(office: Office) -> None:
    office.publish()
    async with aclosing(office.browser.follow("orders", 3)) as seen:
        assert await sequences(seen, 1) == [1]
        office.publish(FAR_BEHIND + 10)
        assert await news(seen) == Skipped(1, FAR_BEHIND + 9)
        assert await sequences(seen, 3) == [FAR_BEHIND + 9, FAR_BEHIND + 10, FAR_BEHIND + 11]


async def test_outage_is_told_once_and_nothing_is_missed_over_it(office: Office) -> None:
    async with aclosing(office.browser.follow("orders", 3)) as seen:
        assert isinstance(await anext(seen), Quiet)
        office.fakes.nats.up = False
        assert await news(seen) == Trouble("connection refused")
        assert [isinstance(await anext(seen), Quiet) for _ in range(3)] == [True] * 3
        office.publish(2)
        office.fakes.nats.up = True
        assert await sequences(seen, 2) == [1, 2]


async def test_stream_that_was_recreated_is_followed_from_its_beginning(office: Office) -> None:
    office.publish(5)
    async with aclosing(office.browser.follow("orders", 1)) as seen:
        assert await sequences(seen, 1) == [5]
        office.stream.purge()
        office.stream.last_sequence = 0
        assert isinstance(await anext(seen), Quiet)
        office.publish(1)
        assert await sequences(seen, 1) == [1]


async def test_it_ends_with_the_watcher(office: Office) -> None:
    seen = office.browser.follow("orders", 1)
    assert isinstance(await anext(seen), Quiet)
    office.there = False
    async with asyncio.timeout(10):
        assert {type(each) async for each in seen} <= {Quiet}


async def test_it_ends_with_the_service(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.control.stream_browser.PAUSE_SECONDS", 100)
    seen = office.browser.follow("orders", 1)
    for _ in range(2):
        assert isinstance(await anext(seen), Quiet)
    office.browser.close()
    async with asyncio.timeout(10):
        assert [each async for each in seen] == []


async def test_refusals_come_before_anything_else(office: Office) -> None:
    office.fakes.nats.up = False
    with pytest.raises(Unavailable, match="connection refused"):
        await anext(office.browser.follow("orders", 1))
    office.there = False
    with pytest.raises(NotFound):
        await anext(office.browser.follow("orders", 1))


async def test_followers_are_few_and_one_that_leaves_makes_room(office: Office) -> None:
    following = [office.browser.follow("orders", 1) for _ in range(MOST_FOLLOWERS)]
    for each in following:
        await anext(each)
    with pytest.raises(Unavailable, match="followed already"):
        await anext(office.browser.follow("orders", 1))
    await following[0].aclose()
    assert isinstance(await anext(office.browser.follow("orders", 1)), Quiet)
