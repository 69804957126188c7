"""Several entries of `connector.yaml` with one stream: what each entry's place and the stream tell, put together."""

from dataclasses import replace

import pytest

from app.domain.entries import ahead_of, check_stream, combined, place_token, position_of, searched_until
from app.domain.errors import HistoryLost
from app.domain.position import Checkpoint, OwnMessage, Reached, Tail, news
from app.domain.tokens import MessageId, mark_of
from app.domain.watcher import Route, Sink, Source, Watcher
from tests.fakes.source import UUID, event_token, mark_token

A, B = (Watcher(f"shop.{name}", Source("shop", name), Sink("ALL")) for name in "ab")
WATCHER = Watcher("ALL", Source("shop", include=("a", "b")), Sink("ALL"), entries=(A, B))
ONE, TWO, THREE, FOUR = (event_token(moment) for moment in range(1, 5))
TAIL = Tail("then", 100, 100)


def ours(token: str, sequence: int | None = 50, epoch: int = 0, **more: object) -> Checkpoint:
    """What Changewire has stored for an entry."""
    stored = Checkpoint(token, epoch, sequence, "then", "rs/shop.a", "ALL", A.route)
    return replace(stored, **more)  # type: ignore[arg-type]


def theirs(token: str) -> Checkpoint:
    """What mongodb-nats-connector has stored for an entry."""
    return Checkpoint(token, native=None)


def message(token: str, sequence: int = 90, epoch: int = 0) -> OwnMessage:
    return OwnMessage(sequence, MessageId(token, epoch))


def test_without_any_position_there_is_none() -> None:
    assert combined([None, None], WATCHER) is None


def test_the_position_is_the_earliest_and_knows_what_each_place_holds() -> None:
    parts = (theirs(THREE), theirs(ONE))
    found = combined(parts, WATCHER)
    assert found is not None
    assert (found.token, found.epoch, found.sequence, found.native, found.parts) == (ONE, None, None, None, parts)


def test_the_last_message_beside_a_mark_is_the_position() -> None:
    last = ours(mark_token(3), own=message(THREE))
    found = combined([last, ours(THREE)], WATCHER)
    assert found is not None
    assert (found.token, found.sequence, found.epoch) == (THREE, 50, 0)
    assert position_of(last, None, None, "shop.a", shared=False) == THREE
    other_epoch = ours(mark_token(3), own=message(THREE, epoch=1))
    assert position_of(other_epoch, None, None, "shop.a", shared=False) == mark_token(3)


def test_a_move_that_did_not_get_to_every_place_is_true_of_all_but_what_the_connector_wrote_since() -> None:
    moved = ours(mark_token(2), None, 1)
    exact = replace(moved, token=TWO)
    found = combined([exact, ours(FOUR)], WATCHER)
    assert found is not None
    assert [part and part.token for part in found.parts] == [TWO, TWO]
    found = combined([moved, exact], WATCHER)
    assert found is not None
    assert [part and part.token for part in found.parts] == [TWO, TWO]
    found = combined([exact, theirs(THREE)], WATCHER)
    assert found is not None
    assert [part and part.token for part in found.parts] == [TWO, THREE]
    alone = replace(exact, watcher="shop.a")  # a watcher of this collection alone was moved, not this one
    found = combined([alone, ours(FOUR)], WATCHER)
    assert found is not None
    assert [part and part.token for part in found.parts] == [TWO, FOUR]


def test_an_entry_that_comes_from_another_stream_has_no_place_on_this_one() -> None:
    before = ours(mark_token(2), 7, stream_created="before", own=message(TWO), route=Route("A", "{stream}", "0"))
    found = combined([before, None], WATCHER)
    assert found is not None
    assert (found.token, found.sequence, found.stream_created) == (TWO, None, None)
    assert not check_stream(found.parts, None, TAIL)
    assert searched_until(found.parts, None, TAIL) == 0


@pytest.mark.parametrize(
    ("part", "last", "memory", "shared", "expected"),
    [
        (None, None, None, False, None),
        (theirs(ONE), None, None, False, ONE),
        (theirs(ONE), message(TWO), None, False, TWO),
        (theirs(THREE), message(TWO), None, False, THREE),
        (theirs(THREE), message(TWO), None, True, TWO),
        (theirs(THREE), None, None, True, THREE),
        (ours(THREE), message(TWO), None, True, THREE),
        (ours(ONE, epoch=1), message(TWO), None, False, ONE),
        (ours(ONE, epoch=1), message(TWO, epoch=1), None, False, TWO),
        (ours(ONE), message(TWO), Reached(THREE, 0, 60, "then"), False, THREE),
        (ours(ONE), None, Reached(TWO, 0, 60, "then", ahead=(("shop.a", FOUR),)), False, FOUR),
        (ours(ONE), None, Reached(TWO, 0, 60, "then", ahead=(("shop.b", FOUR),)), False, TWO),
    ],
)
def test_an_entry_is_as_far_as_the_latest_that_tells_of_it(
    part: Checkpoint | None, last: OwnMessage | None, memory: Reached | None, shared: bool, expected: str | None
) -> None:
    assert position_of(part, last, memory, "shop.a", shared=shared) == expected


def test_the_search_goes_back_to_what_the_least_known_entry_has_seen() -> None:
    assert searched_until([ours(ONE, 40), ours(ONE, 50)], None, TAIL) == 40
    assert searched_until([ours(ONE, 40), theirs(ONE)], None, TAIL) == 0
    assert searched_until([ours(ONE, 40), None], None, TAIL) == 0
    assert searched_until([ours(ONE, 40), theirs(ONE)], Reached(ONE, 0, 60, "then"), TAIL) == 60
    assert searched_until([ours(ONE, 40), theirs(ONE)], Reached(ONE, 0, 60, "before"), TAIL) == 0


def test_a_stream_that_is_another_one_or_lost_its_end_is_noticed() -> None:
    with pytest.raises(HistoryLost, match="deleted and recreated"):
        check_stream([ours(ONE, stream_created="before"), theirs(ONE)], None, TAIL)
    assert check_stream([ours(ONE, 101), theirs(ONE)], None, TAIL)
    assert check_stream([theirs(ONE), None], Reached(ONE, 0, 101, "then"), TAIL)
    assert not check_stream([ours(ONE, 100), None], None, TAIL)


def test_what_is_ahead_of_the_earliest() -> None:
    assert ahead_of(TWO, {"shop.a": TWO, "shop.b": FOUR}) == (("shop.b", FOUR),)


def test_a_place_holds_what_its_collections_change_stream_can_begin_at() -> None:
    assert place_token(THREE, UUID.lower()) == THREE
    assert place_token(THREE, None) == place_token(THREE, "0" * 32) == mark_token(3)
    assert place_token(mark_token(3), None) == mark_token(3)
    assert place_token("82" + "0" * 16 + "2B06" + "5A1004" + UUID, None) is None


def test_a_mark_has_the_format_of_its_token() -> None:
    assert mark_of(THREE) == mark_token(3)
    assert mark_of(THREE.replace("2B02", "2B04")) == mark_token(3)[:18] + "2B0429296E1404"


def test_where_entries_are_ahead_a_message_that_was_there_before_says_nothing_of_the_others() -> None:
    tail = replace(TAIL, own=message(FOUR, 90))
    ahead = Reached(ONE, 0, 90, "then", ahead=(("shop.b", FOUR),))
    assert news(tail, ahead).own is None
    assert news(tail, replace(ahead, sequence=89)).own == tail.own
    assert news(tail, replace(ahead, ahead=())).own == tail.own
