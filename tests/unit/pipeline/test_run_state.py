"""The protocol's memory: what each transition may do to a position, and that nothing else moves one."""

from collections.abc import Callable
from dataclasses import fields, replace

import pytest

from app.domain.position import OwnMessage, Reached
from app.domain.tokens import MessageId
from app.domain.watcher import Route
from app.pipeline.run_state import RunState
from tests.fakes import event_token
from tests.unit.deployment import watcher

ROUTE = watcher().route
ELSEWHERE = replace(ROUTE, stream="ELSEWHERE")
HERE = Reached(event_token(5), 3, 50, "2026", OwnMessage(50, MessageId(event_token(5), 3)))
BEFORE, AFTER = event_token(4), event_token(6)

Transition = Callable[[RunState, Reached], None]
TRANSITIONS: dict[str, Transition] = {
    "published": lambda state, to: state.published(to.token, to.sequence or 0, to.own),
    "came_to": lambda state, to: state.came_to(to.token),
    "passed_over": lambda state, to: state.passed_over(to),
    "read_back": lambda state, to: state.read_back(to),
    "followed": lambda state, to: state.followed(to),
    "gave_up_count": lambda state, to: state.gave_up_count(to),
    "took_back": lambda state, to: state.took_back(to),
}
FORWARD = ("published", "came_to", "passed_over", "read_back", "followed")


def begun(reached: Reached = HERE, route: Route = ROUTE) -> RunState:
    state = RunState()
    state.begin(reached, route)
    return state


def test_a_process_begins_with_nothing_known() -> None:
    state = RunState()
    assert (state.reached, state.token, state.route, state.unsettled, state.operation_time) == (None, None, None, (), 0)


@pytest.mark.parametrize("name", [each.name.lstrip("_") for each in fields(RunState)] + ["token"])
def test_nothing_is_assigned_from_outside(name: str) -> None:
    with pytest.raises(AttributeError):
        setattr(RunState(), name, None)


# Positions


@pytest.mark.parametrize("name", FORWARD)
def test_a_position_goes_forward_within_its_epoch(name: str) -> None:
    state = begun()
    TRANSITIONS[name](state, replace(HERE, token=AFTER))
    assert state.token == AFTER
    assert state.reached is not None
    assert state.reached.epoch == HERE.epoch


@pytest.mark.parametrize("name", [*FORWARD, "gave_up_count"])
def test_a_position_never_goes_back_within_an_opening(name: str) -> None:
    state = begun()
    with pytest.raises(AssertionError):
        TRANSITIONS[name](state, replace(HERE, token=BEFORE))
    assert state.reached == HERE, "a transition that is refused changes nothing"


@pytest.mark.parametrize("epoch", [HERE.epoch - 1, HERE.epoch + 1])
@pytest.mark.parametrize("name", ["passed_over", "read_back", "followed", "gave_up_count", "took_back"])
def test_an_epoch_changes_only_with_an_opening(name: str, epoch: int) -> None:
    state = begun()
    token = HERE.token if name in ("gave_up_count", "took_back") else AFTER
    with pytest.raises(AssertionError):
        TRANSITIONS[name](state, replace(HERE, token=token, epoch=epoch))
    assert state.reached == HERE


@pytest.mark.parametrize("name", TRANSITIONS)
def test_no_position_moves_before_an_opening_has_decided_on_one(name: str) -> None:
    state = RunState()
    with pytest.raises(AssertionError):
        TRANSITIONS[name](state, HERE)
    assert state.reached is None


def test_an_opening_may_go_back_within_an_epoch_where_the_stream_lost_its_end() -> None:
    state = begun()
    assert not state.begin(replace(HERE, token=BEFORE), ROUTE)
    assert state.token == BEFORE


def test_an_opening_tells_whether_somebody_has_published_since() -> None:
    assert not RunState().begin(HERE, ROUTE), "nothing was known before"
    assert not begun().begin(HERE, ROUTE)
    assert begun().begin(replace(HERE, token=AFTER), ROUTE)


def test_an_opening_never_begins_in_an_earlier_epoch() -> None:
    state = begun()
    with pytest.raises(AssertionError):
        state.begin(replace(HERE, token=AFTER, epoch=HERE.epoch - 1), ELSEWHERE)
    assert (state.reached, state.route) == (HERE, ROUTE)


def test_a_later_epoch_may_begin_at_an_earlier_position() -> None:
    state = begun()
    state.begin(replace(HERE, token=BEFORE, epoch=HERE.epoch + 1), ELSEWHERE)
    assert (state.token, state.route) == (BEFORE, ELSEWHERE)


def test_what_was_passed_over_and_may_be_missing_is_gone_back_to() -> None:
    state = begun()
    state.passed_over(replace(HERE, token=AFTER, sequence=51))
    state.took_back(HERE)
    assert state.reached == HERE
    with pytest.raises(AssertionError):
        state.took_back(replace(HERE, token=AFTER))


def test_an_acknowledgement_moves_token_sequence_and_own_message_and_nothing_else() -> None:
    state, own = begun(replace(HERE, counted=False, proved=False)), OwnMessage(51, MessageId(AFTER, 3))
    state.published(AFTER, 51, own)
    assert state.reached == Reached(AFTER, 3, 51, "2026", own, proved=False, counted=False)


def test_a_change_that_is_not_published_moves_the_token_alone() -> None:
    state = begun()
    state.came_to(AFTER)
    assert state.reached == replace(HERE, token=AFTER)


@pytest.mark.parametrize(("end", "sequence"), [(60, 60), (40, 50)])
def test_the_end_of_a_shared_stream_says_from_where_to_search_and_ends_the_count(end: int, sequence: int) -> None:
    state = begun()
    state.saw_end(end)
    assert state.reached == replace(HERE, sequence=sequence, counted=False)


def test_a_position_that_is_forgotten_leaves_its_route_for_the_next_opening() -> None:
    state = begun()
    state.forget_position()
    assert (state.reached, state.token, state.route) == (None, None, ROUTE)
    state.begin(replace(HERE, token=BEFORE, epoch=0), ROUTE)  # nothing is known that it could contradict
    assert state.token == BEFORE


# What else is decided by


def test_places_stay_unsettled_until_all_are_settled() -> None:
    one, other = (OwnMessage(sequence, MessageId(event_token(sequence), 3)) for sequence in (7, 8))
    state = begun()
    state.left_unsettled([one])
    state.left_unsettled([one, other])
    assert sorted(each.sequence for each in state.unsettled) == [7, 8]
    state.forget_position()
    assert len(list(state.unsettled)) == 2, "moving a watcher does not tell what is on the stream"
    state.settled()
    assert not state.unsettled


def test_races_are_counted_in_a_row() -> None:
    state = begun()
    assert [state.lost_race(), state.lost_race()] == [1, 2]
    state.published(AFTER, 51, None)
    assert state.lost_race() == 1
    state.gave_way()
    assert state.lost_race() == 1


def test_looks_are_counted_in_a_row() -> None:
    state = RunState()
    assert [state.look_at_checkpoint(), state.look_at_checkpoint()] == [1, 2]
    state.checkpoint_passed()
    assert state.look_at_checkpoint() == 1
    assert [state.looked_up(there) for there in (None, None, False, None, True)] == [1, 2, 0, 1, 0]


def test_a_server_that_is_asked_before_reading_never_sets_the_time_back_and_a_reply_does() -> None:
    state = RunState()
    state.prepared(100)
    state.prepared(90)
    assert state.operation_time == 100
    state.replied(95)
    assert state.operation_time == 95
