"""Watchers that share change streams get what they would get from their own: everything, once, in order.

Whatever happens in between: others come and go, a feed fails or is refused, a watcher is slow, collections are written
that nobody wants.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.errors import HistoryLost, NotAuthorised, SourceRefused, SourceUnavailable
from app.domain.watcher import Source, Watcher
from app.mongodb.feeds import feed, filters, group, hot, parts, recent, sharing
from app.mongodb.feeds.group import Group
from app.mongodb.feeds.member import Member
from app.mongodb.feeds.parts import token_of
from app.mongodb.feeds.room import Room
from app.mongodb.feeds.sharing import CATCHES_UP, SharingSource
from tests.fakes import mark_token
from tests.unit.mongodb.feeds.conftest import hasten
from tests.unit.mongodb.feeds.scripted import EVENT_BYTES, Deployment, Stream


class Reader:
    """A watcher: reads, remembers its position, and goes on from there after whatever error."""

    def __init__(self, deployment: Deployment, group: Group, collection: str) -> None:
        self.collection = collection
        self.got: list[str] = []
        self.errors: list[str] = []
        self.begin = self.position = deployment.now
        self._deployment = deployment
        self._group = group
        self._watcher = Watcher(f"w{id(self)}", Source("shop", collection))
        self.source: SharingSource | None = None
        self.own = Stream(deployment, collection)

    async def open(self) -> None:
        if self.source is None:
            self.source = SharingSource(self.own, self._group, self._watcher, batch_size=2)
            await self.source.prepare()
            try:
                await self.source.open(self.position)
            except SourceRefused as error:
                self.errors.append(str(error))
                await self.close()

    async def read(self) -> None:
        if self.source is None:
            return
        try:
            batch = await self.source.read()
        except (SourceUnavailable, SourceRefused) as error:
            self.errors.append(str(error))
            await self.close()
            return
        self.got += [token_of(raw) for raw in batch.events]
        assert batch.position >= self.position
        assert not batch.events or batch.position >= self.got[-1]
        self.position = batch.position

    async def close(self) -> None:
        source, self.source = self.source, None
        if source is not None:
            await source.close()

    @property
    def missing(self) -> list[str]:
        wanted = self._deployment.tokens(self.collection, self.begin)
        assert self.got == wanted[: len(self.got)], "doubled, lost or reordered"
        return wanted[len(self.got) :]


class Scene:
    def __init__(self, *collections: str) -> None:
        self.deployment = Deployment()
        self.group = Group(
            "shop",
            lambda wanted: Stream(self.deployment, wanted=wanted),
            parts.split,
            Room(),
            self.deployment.see_views,
        )
        self.readers = [Reader(self.deployment, self.group, name) for name in collections]

    async def open_all(self) -> None:
        await asyncio.gather(*(reader.open() for reader in self.readers))

    async def until(self, condition: Callable[[], Any], *readers: Reader) -> None:
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.gather(*(reader.read() for reader in readers or self.readers))

    async def until_complete(self, *readers: Reader) -> None:
        await self.until(lambda: not any(reader.missing for reader in readers or self.readers), *readers)

    async def until_shared(self) -> None:
        await self.until(lambda: all(r.source is not None and r.source.reads.shared for r in self.readers))

    async def end(self) -> None:
        for reader in self.readers:
            await reader.close()
        await self.group.close()


def scene(*collections: str) -> Callable[[Callable[[Scene], Awaitable[None]]], Callable[[], Awaitable[None]]]:
    """Play a test on a scene with readers of these collections, and end it."""

    def wrap(play: Callable[[Scene], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
        async def test() -> None:
            one = Scene(*collections)
            try:
                await play(one)
            finally:
                await one.end()

        test.__name__, test.__doc__ = play.__name__, play.__doc__
        return test

    return wrap


@scene("a", "b")
async def test_a_read_that_is_hurried_brings_the_time_up_to_which_the_others_were_heard(one: Scene) -> None:
    await one.open_all()
    await one.until_shared()
    quiet, busy = one.readers
    one.deployment.write("b")
    await one.until_complete(busy)
    assert quiet.source is not None
    quiet.source.hurry()
    await quiet.read()
    assert quiet.position >= mark_token(one.deployment.moment)
    assert quiet.own.hurried == 0


@scene("a", "b")
async def test_a_read_that_is_under_way_is_hurried_too(one: Scene) -> None:
    await one.open_all()
    await one.until_shared()
    quiet = one.readers[0]
    await quiet.read()  # the first one waits for a moment only
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sharing, "QUIET_SECONDS", (1_000.0, 1_000.0))
        under_way = asyncio.create_task(quiet.read())
        await asyncio.sleep(0)  # it waits by now
        assert quiet.source is not None
        quiet.source.hurry()
        async with asyncio.timeout(10):
            await under_way


@scene("a", "b")
async def test_one_that_is_hurried_in_vain_waits_longer_each_time(one: Scene) -> None:
    await one.open_all()
    await one.until_shared()
    quiet, waits = one.readers[0], []

    async def wait(_: Member, seconds: float) -> None:
        waits.append(seconds)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sharing, "FIRST_SECONDS", 0.5)
        patch.setattr(Member, "wait", wait)
        for _ in range(7):
            assert quiet.source is not None
            quiet.source.hurry()
            await quiet.read()
    assert waits == [0.02, 0.04, 0.08, 0.16, 0.32, 0.5, 0.5]


@scene("a")
async def test_a_watcher_with_a_stream_of_its_own_has_that_hurry(one: Scene) -> None:
    await one.open_all()
    assert one.readers[0].source is not None
    one.readers[0].source.hurry()
    assert one.readers[0].own.hurried == 1


@scene("a")
async def test_one_watcher_reads_its_collections_own_stream(one: Scene) -> None:
    await one.open_all()
    one.deployment.write("a")
    await one.until_complete()
    assert one.deployment.opened == ["a"]
    source = one.readers[0].source
    assert source is not None
    assert "the only watcher" in str(source.reads.why)


@scene("a", "b", "c")
async def test_watchers_that_come_together_read_one_stream_of_the_database(one: Scene) -> None:
    await one.open_all()
    for name in "abcab":
        one.deployment.write(name)
    await one.until_complete()
    assert one.deployment.opened == ["*"]
    assert all(reader.source is not None and reader.source.reads.shared for reader in one.readers)


@scene("a", "b")
async def test_the_second_one_brings_the_first_over_to_the_databases_stream(one: Scene) -> None:
    await one.readers[0].open()
    one.deployment.write("a")
    await one.until_complete(one.readers[0])
    await one.readers[1].open()
    for name in "ab" * 10:
        one.deployment.write(name)
    await one.until_complete()
    await one.until_shared()
    await one.readers[1].close()
    source = one.readers[0].source
    await one.until(lambda: source is not None and not source.reads.shared, one.readers[0])
    one.deployment.write("a")
    await one.until_complete(one.readers[0])


@scene("a", "b", "c")
async def test_one_that_is_behind_says_from_the_first_that_it_catches_up(one: Scene) -> None:
    first, second, late = one.readers
    await asyncio.gather(first.open(), second.open())
    for name in "ab" * 10:
        one.deployment.write(name)
    await one.until_complete(first, second)
    await late.open()
    assert late.source is not None
    assert late.source.reads.why == CATCHES_UP


@scene("a", "b", "c", "d")
async def test_those_far_behind_catch_up_by_one_stream_and_join(one: Scene) -> None:
    first, second, *late = one.readers
    await asyncio.gather(first.open(), second.open())
    for name in "abcd" * 30:
        one.deployment.write(name)
    await one.until_complete(first, second)
    await asyncio.gather(*(reader.open() for reader in late))
    await one.until_complete()
    await one.until_shared()
    assert one.deployment.opened == ["*", "*"]


@scene("a", "b", "c")
async def test_one_far_behind_catches_up_by_its_own_stream_and_joins(one: Scene) -> None:
    *first, late = one.readers
    await asyncio.gather(*(reader.open() for reader in first))
    for name in "abc" * 30:
        one.deployment.write(name)
    await one.until_complete(*first)
    await late.open()
    await one.until_complete()
    await one.until_shared()
    assert one.deployment.opened == ["*", "c"]


@scene("a", "b")
async def test_a_passing_error_is_got_over_once_and_raised_the_second_time(one: Scene) -> None:
    await one.open_all()
    one.deployment.trouble = [None, SourceUnavailable("gone for a moment")]
    for name in "ab" * 20:
        one.deployment.write(name)
    await one.until_complete()
    assert not any(reader.errors for reader in one.readers)
    one.deployment.trouble = [SourceUnavailable("gone")] * 2
    await one.until(lambda: all(reader.errors for reader in one.readers))
    assert {error for reader in one.readers for error in reader.errors} == {"gone"}
    await one.open_all()
    one.deployment.write("a")
    await one.until_complete()


@scene("a", "b")
async def test_after_any_other_error_each_reads_by_its_own_stream(one: Scene) -> None:
    await one.open_all()
    await one.until_shared()
    one.deployment.trouble = [HistoryLost("the oplog has moved on")]
    one.deployment.refused = HistoryLost("the oplog has moved on")
    for name in "ab" * 5:
        one.deployment.write(name)
    await one.until_complete()
    assert {"a", "b"} <= set(one.deployment.opened)


@scene("a", "b")
async def test_where_the_account_may_not_watch_the_database_each_has_its_own_stream_and_says_why(one: Scene) -> None:
    one.deployment.refused = NotAuthorised("grant it find on shop")
    await one.open_all()
    one.deployment.write("a")
    await one.until_complete()
    source = one.readers[0].source
    assert source is not None
    assert "may not watch the database shop" in str(source.reads.why)
    assert sorted(one.deployment.opened) == ["a", "b"]


@scene("a", "b")
async def test_one_that_takes_nothing_is_let_go_and_does_not_hold_up_the_other(one: Scene) -> None:
    slow, quick = one.readers
    await one.open_all()
    await one.until_shared()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(feed, "FEED_BYTES", 4 * EVENT_BYTES)
        for name in "ab" * 30:
            one.deployment.write(name)
        await one.until_complete(quick)
        await one.until_complete()
    assert one.deployment.opened[:2] == ["*", "a"]
    assert slow.got == one.deployment.tokens("a")
    await one.until_shared()


@scene("a", "b")
async def test_one_that_is_slower_than_the_rest_all_the_time_is_let_go_though_it_takes_some(one: Scene) -> None:
    slow, quick = one.readers
    await one.open_all()
    await one.until_shared()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(feed, "FEED_BYTES", 4 * EVENT_BYTES)
        patch.setattr(feed, "PATIENCE_SECONDS", 0.1)
        patch.setattr(feed, "STALLED_SECONDS", 60.0)
        async with asyncio.timeout(20):
            while slow.source is not None and slow.source.reads.shared:
                for name in "aaaab":
                    one.deployment.write(name)
                await asyncio.gather(quick.read(), slow.read(), asyncio.sleep(0.002))
        await one.until_complete()


@scene("a", "b")
async def test_one_that_is_let_go_with_something_waiting_goes_on_where_it_was(one: Scene) -> None:
    slow, quick = one.readers
    await one.open_all()
    await one.until_shared()
    for _ in range(8):
        one.deployment.write("a")
    await one.until(lambda: slow.got)
    assert len(slow.missing) > 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(feed, "FEED_BYTES", 3 * EVENT_BYTES)
        for _ in range(20):
            one.deployment.write("b")
        await one.until_complete(quick)
    assert slow.missing
    await one.until_complete()
    assert one.deployment.opened[:2] == ["*", "a"]


@scene("a", "b")
async def test_what_nobody_wants_is_filtered_away_and_a_newcomer_let_in_again(one: Scene) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(filters, "LEAST", 20)
        await one.open_all()
        for _ in range(50):
            one.deployment.write("z")
        for name in "ab" * 3:
            one.deployment.write(name)
        await one.until_complete()
        assert one.deployment.opened == ["*", "*"]
        late = Reader(one.deployment, one.group, "z")
        one.readers.append(late)
        await late.open()
        for name in "abz" * 3:
            one.deployment.write(name)
        await one.until_complete()
        await one.until_shared()


@scene("a", "b", "c")
async def test_one_whose_collection_became_a_view_is_told_so_by_its_own_stream_and_the_others_go_on(one: Scene) -> None:
    became, *others = one.readers
    await one.open_all()
    await one.until_shared()
    for name in "abca":
        one.deployment.write(name)
    one.deployment.views.add("a")
    await one.until(lambda: became.errors)
    assert became.errors == ["a is a view"]
    assert not became.missing, "it has what came before"
    for name in "bc":
        one.deployment.write(name)
    await one.until_complete(*others)
    assert all(reader.source is not None and reader.source.reads.shared for reader in others)
    await became.open()
    assert became.errors == ["a is a view"] * 2
    one.deployment.views.clear()
    await became.open()
    one.deployment.write("a")
    await one.until_complete()


@scene("a", "b", "c")
async def test_a_view_is_let_go_only_when_the_feed_has_come_to_where_it_became_one(one: Scene) -> None:
    became, *others = one.readers
    await one.open_all()
    await one.until_shared()
    for name in "ab" * 50:
        one.deployment.write(name)
    one.deployment.views.add("a")
    await one.until(lambda: became.errors)
    assert not became.missing
    await one.until_complete(*others)


@scene("a", "b", "c")
async def test_views_do_not_join_those_that_come_together_do(one: Scene) -> None:
    one.deployment.views.add("b")
    await one.open_all()
    await one.until(lambda: all(reader.source is None or reader.source.reads.shared for reader in one.readers))
    assert [reader.errors for reader in one.readers] == [[], ["b is a view"], []]
    assert one.deployment.opened == ["*"]


async def test_who_come_together_ask_once_for_the_views() -> None:
    one = Scene(*(f"c{number}" for number in range(100)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(group, "VIEWS_SECONDS", 60.0)
        await one.open_all()
        await one.until_shared()
    assert one.deployment.asked == 1
    await one.end()


@scene("a", "b", "c")
async def test_a_rename_reaches_both_names_and_a_dropped_database_nobody(one: Scene) -> None:
    await one.open_all()
    one.deployment.write("a")
    renamed = one.deployment.write("a", "rename", to={"db": "shop", "coll": "b"})
    one.deployment.write("b")
    one.deployment.events.append((one.deployment.write("x"), "shop", "", one.deployment.events.pop()[3]))
    await one.until(lambda: renamed in one.readers[0].got and len(one.readers[1].got) == 2)
    assert one.readers[1].got[0] == renamed
    assert one.readers[2].got == []


STEPS = st.one_of(
    st.tuples(st.just("write"), st.sampled_from("abcz")),
    st.tuples(st.sampled_from(["open", "read", "read", "read", "close"]), st.integers(0, 4)),
    st.tuples(st.just("trouble"), st.sampled_from([SourceUnavailable("gone"), HistoryLost("lost")])),
    st.tuples(st.just("view"), st.sampled_from("abc")),
    st.tuples(st.just("wait"), st.sampled_from([0.0, 0.003, 0.015])),
)


@given(steps=st.lists(STEPS, max_size=60), room=st.integers(1, 12), least=st.integers(2, 10), aside=st.booleans())
def test_whatever_happens_each_gets_everything_once_and_in_order(
    steps: list[tuple[str, Any]], room: int, least: int, aside: bool
) -> None:
    async def play() -> None:
        one = Scene("a", "b", "c", "a", "b")
        opening: set[asyncio.Task[None]] = set()
        for step, value in steps:
            match step:
                case "write":
                    if value not in one.deployment.views:
                        one.deployment.write(value)
                case "view":
                    one.deployment.views ^= {value}
                case "open":
                    opening.add(asyncio.create_task(one.readers[value].open()))
                    await asyncio.sleep(0)
                case "trouble":
                    one.deployment.trouble.append(value)
                case "wait":
                    await asyncio.sleep(value)
                case _:
                    await asyncio.gather(*opening)
                    await getattr(one.readers[value], step)()
        await asyncio.gather(*opening)
        one.deployment.trouble.clear()
        one.deployment.views.clear()
        async with asyncio.timeout(20):
            while any(reader.missing or reader.source is None for reader in one.readers):
                await one.open_all()
                await asyncio.gather(*(reader.read() for reader in one.readers))
        await one.end()

    with pytest.MonkeyPatch.context() as patch:
        hasten(patch)
        patch.setattr(feed, "FEED_BYTES", room * EVENT_BYTES)
        patch.setattr(filters, "LEAST", least)
        patch.setattr(feed, "ASIDE_BYTES", 0 if aside else 1_000_000)
        asyncio.run(play())


@scene("a", "b", "c")
async def test_one_that_is_always_a_little_behind_joins_while_the_others_are_written(one: Scene) -> None:
    *early, late = one.readers
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recent, "KEPT_BYTES", 60 * EVENT_BYTES)
        await is_always_a_little_behind(one, early, late)


async def is_always_a_little_behind(one: Scene, early: list[Reader], late: Reader) -> None:
    for reader in early:
        await reader.open()
    await one.until(lambda: all(r.source is not None and r.source.reads.shared for r in early), *early)
    late.own.behind = 21
    for name in "abc" * 10:
        one.deployment.write(name)
    await one.until_complete(*early)
    await late.open()

    def joined() -> bool:
        for name in "abc":
            one.deployment.write(name)
        return late.source is not None and late.source.reads.shared

    await one.until(joined)
    await one.until_complete()


@scene("a", "b")
async def test_one_that_most_of_it_is_for_is_let_go_where_the_feed_does_not_keep_up(one: Scene) -> None:
    hot_one, other = one.readers
    await one.open_all()
    await one.until_shared()

    def let_go() -> bool:
        for name in "aaab" * 5:
            one.deployment.write(name)
        return hot_one.source is not None and not hot_one.source.reads.shared

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hot, "BEHIND_SECONDS", 0.0)
        patch.setattr(sharing, "AGAIN_SECONDS", 60.0)
        await one.until(let_go)
        assert hot_one.source is not None
        assert "more than all others" in str(hot_one.source.reads.why)
        assert other.source is not None
        assert other.source.reads.shared
    await one.until_complete()
