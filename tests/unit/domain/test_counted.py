"""What is counted where messages are gone."""

import pytest

from app.domain.counted import SLACK_SECONDS, Counted, count_at_opening, count_gone, published_until
from app.domain.position import Checkpoint, OwnMessage, Reached, Tail
from app.domain.tokens import MessageId, RowPlace
from tests.fakes import event_token, mark_token
from tests.unit.domain.values import CREATED, checkpoint, tail


def gone(end: Tail, stored: Checkpoint | None, memory: Reached | None = None) -> int:
    return count_at_opening(end, stored, memory, goes_on=True).gone


def test_messages_behind_the_checkpoint_are_counted_where_they_are_gone() -> None:
    assert gone(tail(None, last=9, counts=True), checkpoint(5, sequence=5)) == 4
    assert gone(tail(None, last=5, counts=True), checkpoint(5, sequence=5)) == 0


def test_what_the_stream_still_shows_is_counted_from() -> None:
    shown = Tail(CREATED, 12, 9, OwnMessage(9, MessageId(event_token(8))), counts=True)
    assert gone(shown, checkpoint(5, sequence=5)) == 3


def test_the_later_of_checkpoint_and_memory_is_counted_from() -> None:
    memory = Reached(event_token(7), 0, 7, CREATED)
    assert gone(tail(None, last=9, counts=True), checkpoint(5, sequence=5), memory) == 2


@pytest.mark.parametrize(
    "tail_",
    [tail(None, last=9), tail(None, last=9, counts=True, foreign=1)],
    ids=["the stream is shared", "others publish"],
)
def test_nothing_is_counted_where_the_count_is_not_certain(tail_: Tail) -> None:
    assert gone(tail_, checkpoint(5, sequence=5)) == 0


def test_nothing_is_counted_behind_a_position_that_says_so_or_does_not_know_the_stream() -> None:
    there = tail(None, last=9, counts=True)
    uncounted = Checkpoint(event_token(5), 0, 5, CREATED, counted=False)
    assert gone(there, uncounted) == 0
    assert gone(there, uncounted, Reached(event_token(7), 0, 7, CREATED)) == 0
    assert gone(there, checkpoint(5, sequence=None)) == 0


def test_a_replay_of_a_writer_that_is_not_as_far_is_seen_and_not_counted_as_gone() -> None:
    reached = Reached(mark_token(8), 0, 9, CREATED)
    replay = OwnMessage(10, MessageId(mark_token(7), 0, event_token(3)))
    assert count_gone(Tail(CREATED, 10, 10, replay, counts=True), reached) == 0
    assert count_gone(Tail(CREATED, 12, 10, replay, counts=True), reached) == 2


def test_nothing_is_counted_on_a_stream_that_lost_its_end_or_of_a_watcher_that_begins() -> None:
    there = tail(None, last=9, counts=True)
    assert count_at_opening(there, checkpoint(5, sequence=5), None, goes_on=False).gone == 0
    assert gone(there, None) == 0


@pytest.mark.parametrize(
    ("counted", "sequence", "withdrawn"), [(True, 5, True), (False, 5, False), (True, None, False)]
)
def test_a_stored_promise_to_count_is_withdrawn_where_it_holds_no_longer(
    counted: bool, sequence: int | None, withdrawn: bool
) -> None:
    stored = Checkpoint(event_token(5), 0, sequence, CREATED, counted=counted)
    shared = count_at_opening(tail(None, last=9), stored, None, goes_on=True)
    assert (shared.certain, shared.withdrawn) == (False, withdrawn)
    alone = count_at_opening(tail(None, last=9, counts=True), stored, None, goes_on=True)
    assert (alone.certain, alone.withdrawn) == (counted, False)


def test_no_change_later_than_the_streams_last_message_counts_as_published() -> None:
    assert published_until(1_000, tail(None, quiet=40.9)) == 1_000 - 40 + SLACK_SECONDS


def test_a_refused_count_names_a_token_that_can_be_set_though_it_began_within_a_snapshots_rows() -> None:
    since = Reached(str(RowPlace(mark_token(2), 0, "0123456789ab", 0, 3)), 0, 9, CREATED)
    said = str(Counted(left=2).refusal(since, "ORDERS.*"))
    assert f"Changes after {mark_token(2)} may" in said
