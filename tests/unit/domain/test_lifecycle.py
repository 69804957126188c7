"""The table of states, over every state and signal."""

import itertools

import pytest

from app.domain import backoff, lag
from app.domain.lifecycle import TRANSITIONS, ImpossibleTransition, Signal, State, move
from tests.fakes import BEGIN, event_token


@pytest.mark.parametrize(("state", "signal"), list(itertools.product(State, Signal)))
def test_every_pair_has_one_outcome(state: State, signal: Signal) -> None:
    if signal in TRANSITIONS[state]:
        assert move(state, signal) is TRANSITIONS[state][signal]
    else:
        with pytest.raises(ImpossibleTransition, match=str(signal)):
            move(state, signal)


@pytest.mark.parametrize("state", State)
def test_every_state_can_be_left_by_start_and_by_stop(state: State) -> None:
    assert move(state, Signal.START) is State.STARTING
    assert move(state, Signal.STOP) is State.PAUSED


def test_nothing_runs_that_was_not_started() -> None:
    for state in (State.PAUSED, State.FAILED, State.FENCED):
        assert Signal.OPENED not in TRANSITIONS[state]


def test_every_state_can_be_reached() -> None:
    assert {target for row in TRANSITIONS.values() for target in row.values()} == set(State)


def test_the_wait_grows_to_its_limit_and_is_drawn_from_all_of_it() -> None:
    assert backoff.delay(1, 0.0) == 0.0
    assert [backoff.delay(attempt, 1.0) for attempt in (1, 2, 3)] == [backoff.FIRST_SECONDS * 2**n for n in (0, 1, 2)]
    assert backoff.delay(10_000, 1.0) == backoff.LIMIT_SECONDS


def test_lag_is_never_below_zero_and_headroom_may_be() -> None:
    assert lag.lag_seconds(BEGIN + 30, event_token(10)) == 20.0
    assert lag.lag_seconds(BEGIN + 5, event_token(10)) == 0.0
    assert lag.headroom_seconds(event_token(10), BEGIN + 4) == 6.0
    assert lag.headroom_seconds(event_token(10), BEGIN + 14) == -4.0
