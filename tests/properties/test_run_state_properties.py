"""The invariants of the protocol's memory, over every order of transitions, also of those that must not come."""

import copy
import re
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from app.domain.position import Reached
from app.pipeline import run_state
from app.pipeline.run_state import RunState
from tests.fakes import event_token
from tests.unit.deployment import watcher

ROUTE = watcher().route
POSITIONS = st.builds(
    Reached, st.integers(1, 4).map(event_token), st.integers(0, 2), st.none() | st.integers(1, 9), counted=st.booleans()
)
TRANSITIONS: dict[str, Callable[[RunState, Reached], object]] = {
    "begin": lambda state, to: state.begin(to, ROUTE),
    "published": lambda state, to: state.published(to.token, to.sequence or 0, None),
    "came_to": lambda state, to: state.came_to(to.token),
    "passed_over": lambda state, to: state.passed_over(to),
    "read_back": lambda state, to: state.read_back(to),
    "gave_up_count": lambda state, to: state.gave_up_count(to),
    "took_back": lambda state, to: state.took_back(to),
    "followed": lambda state, to: state.followed(to),
    "saw_end": lambda state, to: state.saw_end(to.sequence or 0),
    "forget_position": lambda state, _: state.forget_position(),
}


def test_the_table_of_transitions_names_all_that_move_a_position() -> None:
    rows = re.findall(r"^    ([a-z_]+)  +(?:opening|writer|standby|control)", run_state.__doc__ or "", re.MULTILINE)
    assert sorted(rows) == sorted(TRANSITIONS)


@given(st.lists(st.tuples(st.sampled_from(sorted(TRANSITIONS)), POSITIONS), max_size=30))
def test_no_order_of_transitions_breaks_an_invariant(told: list[tuple[str, Reached]]) -> None:
    state = RunState()
    for name, to in told:
        before = copy.deepcopy(state)
        try:
            TRANSITIONS[name](state, to)
        except AssertionError:
            assert state == before, f"{name} is refused and changes nothing"
            continue
        known, now = before.reached, state.reached
        if name == "forget_position":
            assert now is None
        elif known is None or now is None:
            assert name == "begin", "only an opening brings a position"
        elif name == "begin":
            assert now.epoch >= known.epoch
        elif name == "took_back":
            assert now.epoch == known.epoch
            assert now.token <= known.token
        else:
            assert now.epoch == known.epoch
            assert now.token >= known.token
