"""What waits for one watcher in a feed: it takes everything later than its position, once, in order, and no more at a
time than it wants."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.errors import SourceUnavailable
from app.mongodb.feeds import member as module
from app.mongodb.feeds.member import Member
from app.mongodb.feeds.parts import split, token_of
from app.ports import SourceBatch
from tests.encoders import raw_events
from tests.fakes import event_token, mark_token, raw_event


class Feeding:
    """A feed as its member sees it."""

    def __init__(self) -> None:
        self.position = self.mark = mark_token(0)
        self.operation_time = 7
        self.caught_up = False
        self.taken = 0
        self.left: list[Member] = []

    def took(self, size: int) -> None:
        self.taken += size

    def leave(self, member: Member) -> None:
        self.left.append(member)


def put(member: Member, *moments: int, reduced: tuple[str, ...] = ()) -> int:
    """Hand the events of these moments over as one part; return the bytes that wait more."""
    (part,) = split(raw_events([raw_event(moment, ns={"db": "shop", "coll": "a"}) for moment in moments]))
    return member.put(part, reduced)


def moments(batch: SourceBatch) -> list[str]:
    return [token_of(raw) for raw in batch.events]


def tokens(*moments: int) -> list[str]:
    return [event_token(moment) for moment in moments]


async def test_events_up_to_its_position_are_skipped_and_later_ones_taken() -> None:
    member = Member(Feeding(), "shop", "a", event_token(3))
    assert put(member, 1, 2) == 0
    assert put(member, 3, 4) == put(member, 5)
    assert moments(member.take(10)) == tokens(4, 5)
    assert member.position == event_token(5)


async def test_a_position_between_two_events_skips_only_the_earlier_one() -> None:
    member = Member(Feeding(), "shop", "a", mark_token(3))
    put(member, 2, 3, 4)
    taken = moments(member.take(10))
    assert taken == [token for token in tokens(2, 3, 4) if token > mark_token(3)]
    assert taken[-1] == event_token(4)


async def test_a_quiet_member_moves_on_to_the_high_water_mark_and_never_to_an_event_of_others() -> None:
    feed = Feeding()
    member = Member(feed, "shop", "a", event_token(3))
    assert member.take(10).position == event_token(3), "a mark earlier than its position moved it back"
    feed.mark, feed.caught_up = mark_token(9), True
    batch = member.take(10)
    assert (batch.position, batch.caught_up, list(batch.events)) == (mark_token(9), True, [])


async def test_the_position_covers_no_more_than_what_was_taken() -> None:
    feed = Feeding()
    member = Member(feed, "shop", "a", event_token(0))
    put(member, 1, 2, 3)
    feed.mark, feed.caught_up = mark_token(9), True
    batch = member.take(2)
    assert (moments(batch), batch.position, batch.caught_up) == (tokens(1, 2), event_token(2), False)
    batch = member.take(2)
    assert (moments(batch), batch.position, batch.caught_up) == (tokens(3), mark_token(9), True)
    assert batch.operation_time == 7


async def test_what_was_taken_is_given_back_to_the_feeds_room() -> None:
    feed = Feeding()
    member = Member(feed, "shop", "a", event_token(0))
    size = put(member, 1, 2) + put(member, 3)
    assert member.held == size
    taken = member.take(2).size
    assert (member.held, feed.taken) == (size - taken, taken)
    member.take(2)
    assert (member.held, feed.taken) == (0, size)


async def test_large_pieces_are_taken_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TAKE_BYTES", 1)
    member = Member(Feeding(), "shop", "a", event_token(0))
    put(member, 1, 2)
    put(member, 3)
    assert moments(member.take(10)) == tokens(1, 2)
    assert moments(member.take(10)) == tokens(3)


async def test_an_event_without_its_large_fields_is_alone_and_says_what_it_lacks() -> None:
    member = Member(Feeding(), "shop", "a", event_token(0))
    put(member, 1)
    put(member, 2, reduced=("fullDocument",))
    put(member, 3)
    batches = [member.take(10) for _ in range(3)]
    assert [moments(batch) for batch in batches] == [tokens(1), tokens(2), tokens(3)]
    assert [batch.reduced for batch in batches] == [(), ("fullDocument",), ()]


async def test_a_feed_that_goes_on_with_it_hands_nothing_over_twice() -> None:
    first, second = Feeding(), Feeding()
    member = Member(first, "shop", "a", event_token(0))
    put(member, 1, 2)
    member.move(second, event_token(4))
    put(member, 3, 4, 5)
    assert moments(member.take(10)) == tokens(1, 2, 5)
    member.leave()
    assert (first.left, second.left) == ([], [member])


async def test_waiting_ends_with_an_event_with_the_end_and_with_the_time() -> None:
    member = Member(Feeding(), "shop", "a", event_token(0))
    await member.wait(0.001)
    waiting = asyncio.create_task(member.wait(60))
    await asyncio.sleep(0)
    put(member, 1)
    await waiting
    member.take(1)
    waiting = asyncio.create_task(member.wait(60))
    await asyncio.sleep(0)
    member.end(failure=SourceUnavailable("gone"))
    await waiting
    assert member.ended


async def test_its_position_comes_to_the_time_up_to_which_the_feed_has_handed_everything_over() -> None:
    feed = Feeding()
    member = Member(feed, "shop", "a", event_token(0))
    put(member, 1, 2)
    feed.position = event_token(5)  # another collection's event
    assert member.take(1).position == event_token(1)
    assert member.take(1).position == mark_token(5)
    assert event_token(4) < member.position < event_token(5)


async def test_what_waits_for_one_that_is_let_go_is_dropped_and_its_position_stays() -> None:
    member = Member(Feeding(), "shop", "a", event_token(0))
    put(member, 1, 2)
    member.take(1)
    member.end(let_go="too slow")
    assert (member.held, member.position, member.let_go) == (0, event_token(1), "too slow")


@given(
    st.lists(st.lists(st.integers(1, 30), unique=True, min_size=1).map(sorted), max_size=6),
    st.integers(0, 30),
    st.lists(st.integers(1, 5), min_size=1),
)
def test_whatever_the_sizes_everything_later_is_taken_in_order(
    batches: list[list[int]], after: int, sizes: list[int]
) -> None:
    async def play() -> None:
        feed = Feeding()
        member = Member(feed, "shop", "a", event_token(after))
        told, now = list[int](), 0
        for batch in batches:
            batch = [now + moment for moment in batch]
            now = batch[-1]
            told += batch
            put(member, *batch)
        got: list[str] = []
        for size in [*sizes, *([5] * len(told))]:
            batch_taken = member.take(size)
            assert len(batch_taken.events) <= size
            got += moments(batch_taken)
            assert member.position == max([event_token(after), *got])
        assert got == [token for token in tokens(*told) if token > event_token(after)]
        assert member.held == 0

    asyncio.run(play())
