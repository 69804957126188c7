"""Where a watcher goes on when it is opened, case by case, as `docs/concepts.md` describes it."""

from dataclasses import replace
from typing import Any

import pytest

from app.domain.errors import HistoryLost, PositionUndecidable, ScopeMismatch
from app.domain.evidence import Claim
from app.domain.opening import Beginning, Facts, FirstStart, GoOn, Plan, Refill, decide_opening
from app.domain.position import Checkpoint, OwnMessage, Reached, Tail
from app.domain.tokens import MessageId
from app.domain.watcher import OnHistoryLost, Source, Start, StoredWatcher, Watcher
from tests.fakes import event_token, mark_token
from tests.unit.domain.values import CREATED, LATER, checkpoint, own, tail

NOW = 1_790_000_000.5
EARLIEST = Start("earliest")
ORDERS = Watcher("orders", Source("shop", "orders")).with_defaults()


def plan(
    end: Tail,
    stored: Checkpoint | None = None,
    memory: Reached | None = None,
    *,
    exclusive: bool = True,
    displaced: bool = False,
    new_start: bool = False,
    start: Start = EARLIEST,
    on_history_lost: OnHistoryLost = "fail",
) -> Plan:
    watcher = replace(ORDERS, start=start, on_history_lost=on_history_lost)
    facts = Facts(end, stored, memory, exclusive, displaced)
    return decide_opening(facts, StoredWatcher(watcher, new_start=new_start), NOW)


def opening(end: Tail, stored: Checkpoint | None = None, memory: Reached | None = None, **more: Any) -> Beginning:
    return plan(end, stored, memory, **more).beginning


def test_a_first_start_has_nothing_to_go_on_from() -> None:
    assert opening(Tail(CREATED, 0, 0)) == FirstStart(0, 0)


def test_a_first_start_at_the_present_has_plain_ids_whatever_the_stream_has_held() -> None:
    purged = Tail(CREATED, 10, 0)
    for new_start in (False, True):
        begins = opening(purged, new_start=new_start, start=Start("latest"))
        assert begins == FirstStart(0, 10)
        assert opening(purged, new_start=new_start) == FirstStart(int(NOW), 10)
    again = opening(tail(8, epoch=2), new_start=True, start=Start("latest"))
    assert again == FirstStart(3, 10)


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


OWN_LAST = Reached(event_token(9), 0, 12, CREATED, own(8, 10))
"""A change that was published at 10, a quiet moment after it, a neighbour's messages up to 12."""


def test_an_end_that_shows_our_last_message_or_a_later_one_is_no_loss() -> None:
    for moment in (8, 9):
        assert opening(tail(moment, last=20), None, OWN_LAST) == GoOn(event_token(9), 0, 20)
    assert opening(tail(8, last=10), None, OWN_LAST) == GoOn(event_token(9), 0, 10)  # what was lost is the neighbour's


@pytest.mark.parametrize("end", [tail(6, last=20), tail(None, last=20), tail(9, epoch=-1, last=20)])
def test_an_end_before_our_last_message_is_no_loss_where_nothing_else_has_its_place(end: Tail) -> None:
    assert opening(end, None, OWN_LAST) == GoOn(event_token(9), 0, 20)  # expired, consumed or behind another epoch's


def test_where_somebody_elses_message_has_the_place_of_ours_it_is_published_again() -> None:
    filled = Tail(CREATED, 20, 6, own(6, 6))
    decision = opening(filled, None, OWN_LAST, exclusive=False, displaced=True)
    assert decision == GoOn(event_token(6), 0, 6)
    with pytest.raises(PositionUndecidable, match="lost its end"):
        opening(Tail(CREATED, 20, 0), None, OWN_LAST, exclusive=False, displaced=True)


def test_an_end_before_the_place_of_our_last_message_is_a_loss() -> None:
    assert opening(tail(6, last=9), None, OWN_LAST) == GoOn(event_token(6), 0, 9)


def test_what_was_published_again_under_greater_sequences_is_still_told_from_what_is_missing() -> None:
    """Killed while filling up: the checkpoint still has what was lost, and its sequence is passed by now."""
    half = Tail(CREATED, 20, 18, own(7, 18))
    decision = opening(half, None, OWN_LAST, exclusive=False, displaced=True)
    assert decision == GoOn(event_token(7), 0, 18)


def test_a_recreated_stream_is_history_lost() -> None:
    with pytest.raises(HistoryLost, match="recreated"):
        opening(tail(None, last=0, created=LATER), checkpoint(8))


def test_a_checkpoint_of_the_connector_belongs_to_the_epoch_the_stream_is_in() -> None:
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
    assert opening(tail(8, epoch=1), new_start=True) == FirstStart(2, 10)
    assert opening(Tail(CREATED, 0, 0), new_start=True) == FirstStart(0, 0)


def test_an_explicit_start_is_not_used_where_a_position_is_stored() -> None:
    assert opening(tail(8), checkpoint(9), new_start=True) == GoOn(event_token(9), 0, 10)


def test_messages_of_others_hide_ours_only_where_the_search_was_given_up() -> None:
    with pytest.raises(PositionUndecidable, match="other publishers"):
        opening(tail(None, foreign=100, unsearched=True))
    with pytest.raises(PositionUndecidable, match="other publishers"):
        opening(tail(4, foreign=100, unsearched=True))  # a later one of ours may be among them
    with pytest.raises(PositionUndecidable, match="purge their messages"):
        opening(tail(4, foreign=100, unsearched=True), checkpoint(5))  # which may lag behind what is hidden
    moved = checkpoint(5, epoch=1, sequence=None, created=None)
    assert opening(tail(4, foreign=100, unsearched=True), moved) == GoOn(event_token(5), 1, 10)
    assert opening(tail(None, foreign=3)) == FirstStart(int(NOW), 10)


def test_the_fence_is_the_streams_sequence_only_where_the_stream_is_ours_alone() -> None:
    shared = Tail(CREATED, 90, 40, OwnMessage(40, MessageId(event_token(4))))
    assert opening(shared, exclusive=False) == GoOn(event_token(4), 0, 40)
    assert opening(shared, exclusive=True) == GoOn(event_token(4), 0, 90)


def test_where_an_earlier_life_may_have_published_in_any_epoch_the_time_is_a_new_one() -> None:
    assert opening(tail()) == FirstStart(1_790_000_000, 10)
    assert opening(tail(), new_start=True) == FirstStart(1_790_000_000, 10)


# What follows from where it goes on


def test_what_the_stream_lost_is_told_and_is_not_our_last_message_any_more() -> None:
    lost = plan(Tail(CREATED, 20, 6, own(6, 6)), None, OWN_LAST, exclusive=False, displaced=True)
    assert lost.lost_end
    assert lost.own == own(6, 6)
    kept = plan(tail(6, last=20), None, OWN_LAST, exclusive=False)
    assert not kept.lost_end
    assert kept.own == own(8, 10)


def test_a_recreated_stream_is_gone_on_with_in_a_new_epoch_without_the_messages_of_the_old_one() -> None:
    with pytest.raises(HistoryLost):
        opening(Tail(LATER, 2, 0), None, OWN_LAST)
    again = plan(Tail(LATER, 2, 0, counts=True), None, OWN_LAST, on_history_lost="latest")
    assert again.beginning == Refill(event_token(9), 1, 2)
    assert again.own is None
    assert again.count.gone == 0


def test_the_position_to_begin_at_lies_before_what_is_passed_over() -> None:
    counted = plan(tail(None, last=9, counts=True), checkpoint(5, sequence=5))
    assert counted.count.gone == 4
    assert counted.reached(event_token(5), tail(None, last=9)) == Reached(event_token(5), 0, 5, CREATED, counted=True)


def test_a_position_that_only_the_stream_tells_has_to_be_proved() -> None:
    assert plan(tail(8), checkpoint(5)).claim == Claim(event_token(8), "the message 10 of the stream ORDERS")
    assert plan(tail(5), checkpoint(8, sequence=10)).claim is None
    hiding = plan(tail(5), checkpoint(8, sequence=9)).claim  # one of ours may be before it, whose ack was lost
    assert hiding is not None
    assert hiding.token == event_token(5)
    assert plan(Tail(CREATED, 0, 0)).claim is None


def test_a_first_start_proves_what_the_stream_ends_with_before_it_goes_in_between() -> None:
    begins = plan(tail(8), new_start=True)
    assert begins.beginning == FirstStart(1, 10)
    assert begins.claim is not None
    assert begins.claim.token == event_token(8)


def test_a_copied_checkpoint_of_a_quiet_moment_that_names_no_message_is_refused() -> None:
    with pytest.raises(ScopeMismatch, match="copied here"):
        plan(Tail(CREATED, 0, 0), Checkpoint(mark_token(9), native=False))
