"""What stream, checkpoint and memory tell of a position, and how that compares."""

import pytest

from app.domain.errors import ScopeMismatch, SourceUnavailable
from app.domain.position import (
    Checkpoint,
    Reached,
    Tail,
    check_scope,
    known_until,
    last_own,
    latest,
    next_epoch,
    unseen,
)
from tests.fakes import BEGIN, event_token, mark_token
from tests.unit.domain.values import CREATED, LATER, checkpoint, own, tail

NOW = 1_790_000_000.5

OWN_LAST = Reached(event_token(9), 0, 12, CREATED, own(8, 10))
"""A change that was published at 10, a quiet moment after it, a neighbour's messages up to 12."""


def test_the_place_of_our_last_message_is_looked_at_where_the_end_does_not_show_it() -> None:
    for moment in (8, 9):
        assert unseen(tail(moment, last=20), OWN_LAST) is None
    assert unseen(tail(8, last=10), OWN_LAST) is None
    for end in (tail(6, last=20), tail(None, last=20), tail(9, epoch=-1, last=20), Tail(CREATED, 20, 18, own(7, 18))):
        assert unseen(end, OWN_LAST) == own(8, 10)
    assert unseen(tail(6, last=9), OWN_LAST) is None, "the stream does not reach up to there"


def test_a_recreated_stream_is_not_searched_for_what_the_old_one_had() -> None:
    assert unseen(tail(6, last=20, created=LATER), OWN_LAST) is None


def test_the_last_message_of_ours_is_the_later_of_the_streams_and_the_remembered_one() -> None:
    assert last_own(tail(9), 0, own(8, 5)) == own(9, 10)
    assert last_own(tail(6), 0, own(8, 5)) == own(8, 5)
    assert last_own(tail(6), 0, None) == own(6, 10)
    assert last_own(tail(6), 1, None) is None


def test_the_stream_is_known_up_to_the_earlier_of_what_checkpoint_and_memory_have_seen() -> None:
    assert known_until(None, None) == 0
    assert known_until(checkpoint(5, sequence=7), None) == 7
    assert known_until(checkpoint(5, sequence=7), Reached(event_token(8), 0, 9, CREATED)) == 7
    assert known_until(checkpoint(5, sequence=None), Reached(event_token(8), 0, 9, CREATED)) == 0


def test_a_new_epoch_is_later_than_any_that_was_published_in() -> None:
    assert next_epoch(None, None, NOW) == 1
    assert next_epoch(checkpoint(1, epoch=2), tail(1, epoch=4), NOW) == 5
    assert next_epoch(checkpoint(1, epoch=2), tail(), NOW) == 3
    assert next_epoch(checkpoint(1, epoch=None), None, NOW) == 1
    assert next_epoch(None, Tail(CREATED, 0, 0), NOW) == 1
    for stored in (None, checkpoint(1, epoch=None)):
        assert next_epoch(stored, tail(), NOW) == 1_790_000_000, "an earlier life may have published in any epoch"


def test_the_position_of_a_watcher_that_does_not_run_is_the_latest_of_the_last_epoch() -> None:
    memory = Reached(event_token(9), 1)
    assert latest(None, None) is None
    assert latest(checkpoint(5, epoch=1), tail(7, epoch=1), memory) == (event_token(9), 1)
    assert latest(checkpoint(5, epoch=2), tail(7, epoch=1), memory) == (event_token(5), 2)
    assert latest(checkpoint(5, epoch=None), tail(7, epoch=3)) == (event_token(7), 3)


def test_a_checkpoint_of_another_collection_or_of_the_future_is_refused() -> None:
    stored = Checkpoint(mark_token(5), scope="rs0/shop.orders")
    check_scope(stored, scope="rs0/shop.orders", operation_time=BEGIN + 5)
    with pytest.raises(ScopeMismatch, match=r"rs0/shop\.orders.*rs0/shop\.other"):
        check_scope(stored, scope="rs0/shop.other", operation_time=BEGIN + 5)
    with pytest.raises(ScopeMismatch, match="future"):
        check_scope(stored, scope="rs0/shop.orders", operation_time=BEGIN + 4)
    with pytest.raises(SourceUnavailable, match="looking again"):
        check_scope(stored, scope="rs0/shop.orders", operation_time=BEGIN + 4, looks=1)
