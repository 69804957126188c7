"""Where a watcher goes on, case by case: each row of the protocol that `docs/concepts.md` describes."""

import pytest

from app.domain.errors import HistoryLost, PositionUndecidable, ScopeMismatch, SourceUnavailable, Stale
from app.domain.position import (
    Checkpoint,
    GoOn,
    OwnMessage,
    Reached,
    StartAnew,
    Tail,
    check_scope,
    count_gone,
    decide_opening,
    decide_read_back,
    known_until,
    last_own,
    latest,
    next_epoch,
    unseen,
)
from app.domain.tokens import MessageId
from tests.fakes import BEGIN, event_token, mark_token

NOW = 1_790_000_000.5
CREATED, LATER = "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"


def tail(moment: int | None = None, *, epoch: int = 0, last: int = 10, space: int | None = None, **more) -> Tail:
    own = None if moment is None else OwnMessage(last, MessageId(event_token(moment), epoch))
    return Tail(more.pop("created", CREATED), last, last if space is None else space, own, **more)


def checkpoint(moment: int, *, epoch: int | None = 0, sequence: int | None = 5, created: str | None = CREATED):
    return Checkpoint(event_token(moment), epoch, sequence, created)


def opening(tail_: Tail, stored=None, memory=None, *, exclusive: bool = True, new_start: bool = False):
    return decide_opening(
        tail=tail_, checkpoint=stored, memory=memory, exclusive=exclusive, new_start=new_start, now=NOW
    )


def test_a_first_start_has_nothing_to_go_on_from() -> None:
    assert opening(Tail(CREATED, 0, 0)) == StartAnew(0, 0)


def test_a_first_start_at_the_present_has_plain_ids_whatever_the_stream_has_held() -> None:
    purged = Tail(CREATED, 10, 0)
    for new_start in (False, True):
        begins = decide_opening(
            tail=purged, checkpoint=None, memory=None, exclusive=True, new_start=new_start, at_latest=True, now=NOW
        )
        assert begins == StartAnew(0, 10)
        assert opening(purged, new_start=new_start) == StartAnew(int(NOW), 10)
    again = decide_opening(
        tail=tail(8, epoch=2), checkpoint=None, memory=None, exclusive=True, new_start=True, at_latest=True, now=NOW
    )
    assert again == StartAnew(3, 10)


def test_the_stream_is_ahead_of_a_checkpoint_that_lags() -> None:
    assert opening(tail(8), checkpoint(5)) == GoOn(event_token(8), 0, 10)


def test_the_checkpoint_is_ahead_where_later_events_were_not_to_be_published() -> None:
    assert opening(tail(5), checkpoint(8)) == GoOn(event_token(8), 0, 10)


def test_memory_knows_where_the_checkpoint_was_dropped_and_the_stream_purged() -> None:
    memory = Reached(event_token(9), 0, 10, CREATED)
    assert opening(tail(None), None, memory) == GoOn(event_token(9), 0, 10)


def test_a_lost_checkpoint_is_made_up_for_by_the_stream() -> None:
    assert opening(tail(8, epoch=2), None) == GoOn(event_token(8), 2, 10)


def test_a_purged_stream_leaves_the_decision_to_the_checkpoint() -> None:
    assert opening(tail(None, last=50), checkpoint(5, sequence=50)) == GoOn(event_token(5), 0, 50)


def test_a_stream_that_lost_its_end_is_filled_again_from_what_is_left() -> None:
    assert opening(tail(3, last=4), checkpoint(8, sequence=9)) == GoOn(event_token(3), 0, 4)


def test_a_stream_that_lost_its_end_and_all_of_ours_cannot_be_decided() -> None:
    with pytest.raises(PositionUndecidable, match="lost its end"):
        opening(tail(None, last=4), checkpoint(8, sequence=9))


def own(moment: int, sequence: int, epoch: int = 0) -> OwnMessage:
    return OwnMessage(sequence, MessageId(event_token(moment), epoch))


OWN_LAST = Reached(event_token(9), 0, 12, CREATED, own(8, 10))
"""A change that was published at 10, a quiet moment after it, a neighbour's messages up to 12."""


def test_an_end_that_shows_our_last_message_or_a_later_one_needs_no_look() -> None:
    for moment in (8, 9):
        assert unseen(tail(moment, last=20), OWN_LAST) is None
        assert opening(tail(moment, last=20), None, OWN_LAST).token == event_token(9)
    assert unseen(tail(8, last=10), OWN_LAST) is None
    assert opening(tail(8, last=10), None, OWN_LAST).token == event_token(9)  # what was lost is the neighbour's


@pytest.mark.parametrize("end", [tail(6, last=20), tail(None, last=20), tail(9, epoch=-1, last=20)])
def test_an_end_before_our_last_message_is_looked_into(end: Tail) -> None:
    assert unseen(end, OWN_LAST) == own(8, 10)
    assert opening(end, None, OWN_LAST).token == event_token(9)  # expired, consumed or behind another epoch's
    with pytest.raises(Stale, match="behind"):
        decide_read_back(reached=OWN_LAST, tail=end, exclusive=False, displaced=True)


def test_where_somebody_elses_message_has_the_place_of_ours_it_is_published_again() -> None:
    filled = Tail(CREATED, 20, 6, own(6, 6))
    decision = decide_opening(tail=filled, checkpoint=None, memory=OWN_LAST, exclusive=False, displaced=True, now=NOW)
    assert decision == GoOn(event_token(6), 0, 6)
    with pytest.raises(PositionUndecidable, match="lost its end"):
        decide_opening(
            tail=Tail(CREATED, 20, 0), checkpoint=None, memory=OWN_LAST, exclusive=False, displaced=True, now=NOW
        )  # fmt: skip


def test_an_end_before_the_place_of_our_last_message_needs_no_look() -> None:
    assert unseen(tail(6, last=9), OWN_LAST) is None
    assert opening(tail(6, last=9), None, OWN_LAST) == GoOn(event_token(6), 0, 9)


def test_what_was_published_again_under_greater_sequences_is_still_told_from_what_is_missing() -> None:
    """Killed while filling up: the checkpoint still has what was lost, and its sequence is passed by now."""
    half = Tail(CREATED, 20, 18, own(7, 18))
    assert unseen(half, OWN_LAST) == own(8, 10)
    decision = decide_opening(tail=half, checkpoint=None, memory=OWN_LAST, exclusive=False, displaced=True, now=NOW)
    assert decision == GoOn(event_token(7), 0, 18)


def test_a_stream_made_anew_is_not_searched_for_what_the_old_one_had() -> None:
    assert unseen(tail(6, last=20, created=LATER), OWN_LAST) is None


def test_the_last_message_of_ours_is_the_later_of_the_streams_and_the_remembered_one() -> None:
    assert last_own(tail(9), 0, own(8, 5)) == own(9, 10)
    assert last_own(tail(6), 0, own(8, 5)) == own(8, 5)
    assert last_own(tail(6), 0, None) == own(6, 10)
    assert last_own(tail(6), 1, None) is None


def test_a_stream_made_anew_is_history_lost() -> None:
    with pytest.raises(HistoryLost, match="made anew"):
        opening(tail(None, last=0, created=LATER), checkpoint(8))


def test_a_connectors_checkpoint_belongs_to_the_epoch_the_stream_is_in() -> None:
    stored = checkpoint(9, epoch=None, sequence=None, created=None)
    assert opening(tail(8), stored) == GoOn(event_token(9), 0, 10)
    assert opening(tail(8, epoch=3), stored) == GoOn(event_token(9), 3, 10)


def test_a_rewind_outweighs_what_was_published_before() -> None:
    rewound = checkpoint(2, epoch=1, sequence=None, created=None)
    memory = Reached(event_token(8), 0, 10, CREATED)
    assert opening(tail(8, epoch=0), rewound, memory) == GoOn(event_token(2), 1, 10)


def test_a_rewind_goes_on_from_what_it_has_published_already() -> None:
    rewound = checkpoint(2, epoch=1, sequence=None, created=None)
    assert opening(tail(4, epoch=1), rewound) == GoOn(event_token(4), 1, 10)


def test_an_older_checkpoint_put_back_by_hand_does_not_undo_a_later_epoch() -> None:
    assert opening(tail(4, epoch=2), checkpoint(9, epoch=1)) == GoOn(event_token(4), 2, 10)


def test_an_explicit_start_on_a_used_stream_begins_a_new_epoch() -> None:
    assert opening(tail(8, epoch=1), new_start=True) == StartAnew(2, 10)
    assert opening(Tail(CREATED, 0, 0), new_start=True) == StartAnew(0, 0)


def test_an_explicit_start_is_not_used_where_a_position_is_stored() -> None:
    assert opening(tail(8), checkpoint(9), new_start=True) == GoOn(event_token(9), 0, 10)


def test_messages_of_others_hide_ours_only_where_the_search_was_given_up() -> None:
    with pytest.raises(PositionUndecidable, match="somebody else"):
        opening(tail(None, foreign=100, unsearched=True))
    with pytest.raises(PositionUndecidable, match="somebody else"):
        opening(tail(4, foreign=100, unsearched=True))  # a later one of ours may be among them
    with pytest.raises(PositionUndecidable, match="purge their messages"):
        opening(tail(4, foreign=100, unsearched=True), checkpoint(5))  # which may lag behind what is hidden
    with pytest.raises(PositionUndecidable, match="somebody else"):
        read_back(tail(6, epoch=1, foreign=100, unsearched=True))
    moved = checkpoint(5, epoch=1, sequence=None, created=None)
    assert opening(tail(4, foreign=100, unsearched=True), moved) == GoOn(event_token(5), 1, 10)
    assert opening(tail(None, foreign=3)) == StartAnew(int(NOW), 10)


def test_the_fence_is_the_streams_sequence_only_where_the_stream_is_ours_alone() -> None:
    shared = Tail(CREATED, 90, 40, OwnMessage(40, MessageId(event_token(4))))
    assert opening(shared, exclusive=False) == GoOn(event_token(4), 0, 40)
    assert opening(shared, exclusive=True) == GoOn(event_token(4), 0, 90)


REACHED = Reached(event_token(5), 1, 8, CREATED)


def read_back(tail_: Tail):
    return decide_read_back(reached=REACHED, tail=tail_, exclusive=True)


def test_reading_back_takes_over_what_arrived() -> None:
    assert read_back(tail(7, epoch=1)) == GoOn(event_token(7), 1, 10)


def test_reading_back_stays_where_nothing_arrived() -> None:
    assert read_back(tail(4, epoch=1)) == GoOn(event_token(5), 1, 10)
    assert read_back(tail(9, epoch=0)) == GoOn(event_token(5), 1, 10)


@pytest.mark.parametrize(
    ("end", "why"),
    [
        (tail(6, epoch=2), "epoch 2"),
        (tail(6, epoch=1, created=LATER), "made anew"),
        (tail(4, epoch=1, last=6), "behind"),
    ],
)
def test_reading_back_opens_again_where_the_world_has_changed(end: Tail, why: str) -> None:
    with pytest.raises(Stale, match=why):
        read_back(end)


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


def test_where_an_earlier_life_may_have_published_in_any_epoch_the_time_is_a_new_one() -> None:
    assert opening(tail()) == StartAnew(1_790_000_000, 10)
    assert opening(tail(), new_start=True) == StartAnew(1_790_000_000, 10)
    assert next_epoch(None, tail(), NOW) == 1_790_000_000
    assert next_epoch(checkpoint(1, epoch=None), tail(), NOW) == 1_790_000_000


def test_the_position_of_a_watcher_that_stands_still_is_the_latest_of_the_last_epoch() -> None:
    memory = Reached(event_token(9), 1)
    assert latest(None, None) is None
    assert latest(checkpoint(5, epoch=1), tail(7, epoch=1), memory) == event_token(9)
    assert latest(checkpoint(5, epoch=2), tail(7, epoch=1), memory) == event_token(5)
    assert latest(checkpoint(5, epoch=None), tail(7, epoch=3)) == event_token(7)


def test_a_checkpoint_of_another_collection_or_of_the_future_is_refused() -> None:
    stored = Checkpoint(mark_token(5), scope="rs0/shop.orders")
    check_scope(stored, scope="rs0/shop.orders", operation_time=BEGIN + 5)
    with pytest.raises(ScopeMismatch, match=r"rs0/shop\.orders.*rs0/shop\.other"):
        check_scope(stored, scope="rs0/shop.other", operation_time=BEGIN + 5)
    with pytest.raises(ScopeMismatch, match="future"):
        check_scope(stored, scope="rs0/shop.orders", operation_time=BEGIN + 4)
    with pytest.raises(SourceUnavailable, match="looking again"):
        check_scope(stored, scope="rs0/shop.orders", operation_time=BEGIN + 4, looks=1)


def gone(tail_: Tail, stored: Checkpoint | None, memory: Reached | None = None) -> int:
    decision = opening(tail_, stored, memory)
    assert isinstance(decision, GoOn)
    return decision.gone


def test_messages_behind_the_checkpoint_are_counted_where_they_are_gone() -> None:
    assert gone(tail(None, last=9, counts=True), checkpoint(5, sequence=5)) == 4
    assert gone(tail(None, last=5, counts=True), checkpoint(5, sequence=5)) == 0


def test_what_the_stream_still_shows_is_counted_from() -> None:
    shown = Tail(CREATED, 12, 9, OwnMessage(9, MessageId(event_token(8))), counts=True)
    assert opening(shown, checkpoint(5, sequence=5)) == GoOn(event_token(8), 0, 12, gone=3)


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
