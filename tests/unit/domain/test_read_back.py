"""Where a writer is after an unknown outcome: what is there, what is gone, and when the watcher is opened again."""

from typing import Any

import pytest

from app.domain.errors import PositionUndecidable, Stale
from app.domain.position import Reached, Tail
from app.domain.read_back import ReadBack, Writer, decide_read_back
from tests.fakes import event_token
from tests.unit.domain.values import CREATED, LATER, own, tail

REACHED = Reached(event_token(5), 1, 8, CREATED)


def read_back(end: Tail, writer: Writer | None = None, **more: Any) -> ReadBack:
    options = {"exclusive": True, "displaced": False, "stream": "ORDERS", **more}
    return decide_read_back(writer or Writer(REACHED), end, **options)


def position(found: ReadBack) -> tuple[str, int, int]:
    return found.reached.token, found.reached.epoch, found.fence


def test_reading_back_takes_over_what_arrived() -> None:
    assert position(read_back(tail(7, epoch=1))) == (event_token(7), 1, 10)


def test_reading_back_stays_where_nothing_arrived() -> None:
    assert position(read_back(tail(4, epoch=1))) == (event_token(5), 1, 10)
    assert position(read_back(tail(9, epoch=0))) == (event_token(5), 1, 10)


def test_the_fence_is_that_of_the_subjects_where_the_stream_is_shared() -> None:
    assert read_back(tail(7, epoch=1, space=9), exclusive=False).fence == 9


@pytest.mark.parametrize(
    ("end", "why"),
    [
        (tail(6, epoch=2), "epoch 2"),
        (tail(6, epoch=1, created=LATER), "recreated"),
        (tail(4, epoch=1, last=6), "has lost messages"),
    ],
)
def test_reading_back_opens_again_where_the_stream_is_another_one(end: Tail, why: str) -> None:
    with pytest.raises(Stale, match=why):
        read_back(end)


def test_reading_back_opens_again_where_another_message_has_the_place_of_our_last_one() -> None:
    writer = Writer(Reached(event_token(9), 0, 12, CREATED, own(8, 10)))
    assert read_back(tail(6, last=20), writer).reached.token == event_token(9)
    with pytest.raises(Stale, match="has lost messages"):
        read_back(tail(6, last=20), writer, displaced=True)


def test_too_many_messages_of_others_cannot_be_decided() -> None:
    with pytest.raises(PositionUndecidable, match="other publishers"):
        read_back(tail(6, epoch=1, foreign=100, unsearched=True))


WAITING = [event_token(moment) for moment in (6, 7, 8)]


def test_of_what_was_sent_so_many_are_stored_as_the_stream_counts_though_they_are_gone() -> None:
    writer = Writer(REACHED, WAITING, sent=event_token(7))
    found = read_back(tail(None, last=10, counts=True), writer)
    assert (found.reached.token, found.reached.sequence, found.hidden, found.others) == (event_token(7), 10, 2, 0)
    assert found.reached.counted


def test_what_is_gone_and_was_not_sent_is_another_writers() -> None:
    for sent, last in ((event_token(6), 10), ("", 9)):
        found = read_back(tail(None, last=last, counts=True), Writer(REACHED, WAITING, sent=sent))
        assert (found.reached.token, found.others) == (event_token(5), last - 8)
        assert not found.reached.counted


def test_a_replay_and_what_is_passed_over_are_not_counted_as_sent() -> None:
    found = read_back(tail(None, last=9, counts=True), Writer(REACHED, out_of_turn=1))
    assert (found.hidden, found.fence) == (0, 9)
    passing = read_back(tail(None, last=11, counts=True), Writer(REACHED, WAITING, passing=3))
    assert (passing.hidden, passing.passing, passing.reached.sequence) == (0, 3, 8)


def test_a_later_message_of_ours_ends_what_was_to_be_passed_over() -> None:
    found = read_back(tail(7, epoch=1, last=11, counts=True), Writer(REACHED, WAITING, passing=3))
    assert (found.reached.token, found.passing, found.reached.sequence) == (event_token(7), 0, 11)


def test_a_position_that_is_none_of_the_changes_that_wait_has_to_be_proved() -> None:
    assert read_back(tail(7, epoch=1), Writer(REACHED, WAITING)).claim is None
    found = read_back(tail(9, epoch=1), Writer(REACHED, WAITING))
    assert found.claim is not None
    assert found.claim.token == event_token(9)
