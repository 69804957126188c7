"""What a watcher's state can be, and the one table of how it changes.

`Desired` is what the user asked for, and is stored. `State` is what the watcher is doing, and follows from what
happens.
"""

from enum import StrEnum


class Desired(StrEnum):
    """What the user asked for."""

    RUNNING = "RUNNING"
    PAUSED = "PAUSED"


class State(StrEnum):
    """What the watcher is doing."""

    STARTING = "STARTING"
    RUNNING = "RUNNING"
    RETRYING = "RETRYING"
    PAUSED = "PAUSED"
    FAILED = "FAILED"
    FENCED = "FENCED"


AT_WORK = frozenset({State.STARTING, State.RUNNING, State.RETRYING})
"""The states in which this instance has to publish the waiting changes."""


class Signal(StrEnum):
    """What happens to a watcher."""

    START = "start"
    """It should run: added, resumed, restarted, or it is time to try again."""
    OPENED = "opened"
    """It reads and publishes."""
    TROUBLE = "trouble"
    """A transient error; it tries again by itself."""
    FAILURE = "failure"
    """A permanent error; a person has to act."""
    OUTRUN = "outrun"
    """Another writer keeps winning."""
    STOP = "stop"
    """It should stop: paused, or the service stops."""


class ImpossibleTransition(Exception):
    """A signal came in a state that has no transition for it; the state is unchanged."""


TRANSITIONS: dict[State, dict[Signal, State]] = {
    State.STARTING: {
        Signal.OPENED: State.RUNNING,
        Signal.TROUBLE: State.RETRYING,
        Signal.FAILURE: State.FAILED,
        Signal.OUTRUN: State.FENCED,
        Signal.STOP: State.PAUSED,
        Signal.START: State.STARTING,
    },
    State.RUNNING: {
        Signal.TROUBLE: State.RETRYING,
        Signal.FAILURE: State.FAILED,
        Signal.OUTRUN: State.FENCED,
        Signal.STOP: State.PAUSED,
        Signal.START: State.STARTING,
    },
    State.RETRYING: {
        Signal.OPENED: State.RUNNING,
        Signal.TROUBLE: State.RETRYING,
        Signal.FAILURE: State.FAILED,
        Signal.OUTRUN: State.FENCED,
        Signal.STOP: State.PAUSED,
        Signal.START: State.STARTING,
    },
    State.FENCED: {
        Signal.START: State.STARTING,
        Signal.TROUBLE: State.RETRYING,
        Signal.FAILURE: State.FAILED,
        Signal.STOP: State.PAUSED,
    },
    State.PAUSED: {Signal.START: State.STARTING, Signal.STOP: State.PAUSED, Signal.FAILURE: State.FAILED},
    State.FAILED: {Signal.START: State.STARTING, Signal.STOP: State.PAUSED, Signal.FAILURE: State.FAILED},
}


def move(state: State, signal: Signal) -> State:
    """Return the state that follows; raises ImpossibleTransition where the table has none."""
    try:
        return TRANSITIONS[state][signal]
    except KeyError:
        raise ImpossibleTransition(f"{signal} in state {state}") from None
