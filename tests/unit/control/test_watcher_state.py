"""What the log says of a watcher's state: each change once, and nothing with every attempt."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from app.control.watcher_state import SAY_SECONDS, WatcherState
from app.domain.errors import HistoryLost, PermanentError, SourceUnavailable, StoreUnavailable
from app.domain.lifecycle import Signal, State
from app.domain.outage import Outage
from app.pipeline.run_statistics import RunStatistics
from tests.fakes import NullObserver

GONE, BUSY = SourceUnavailable("connection refused"), StoreUnavailable("no answer in time")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def state(clock: Clock) -> WatcherState:
    return WatcherState("orders", NullObserver(), clock, RunStatistics(), Outage())


@pytest.fixture
def logs() -> Iterator[list[Any]]:
    with capture_logs() as logs:
        yield logs


def told(logs: list[Any]) -> list[tuple[str, str, str | None]]:
    return [(one["log_level"], one["event"], one.get("reason")) for one in logs]


def test_a_trouble_is_told_when_it_begins_and_again_with_a_new_reason_after_a_while(
    state: WatcherState, clock: Clock, logs: list[Any]
) -> None:
    state.signal(Signal.OPENED)
    for attempt, error in enumerate((GONE, GONE, BUSY, GONE), 1):
        clock.now += 1
        state.troubled(error, attempt)
    assert told(logs) == [("warning", "watcher_retrying", "connection refused")]
    assert (logs[0]["watcher"], logs[0]["type"], logs[0]["attempt"]) == ("orders", "SourceUnavailable", 1)
    clock.now += SAY_SECONDS
    state.troubled(GONE, 5)
    assert len(logs) == 1, "the reason is the one that was told"
    state.troubled(BUSY, 6)
    assert told(logs)[1:] == [("warning", "watcher_retrying", "no answer in time")]


def test_each_change_to_retrying_is_told_also_for_a_reason_that_was_told(state: WatcherState, logs: list[Any]) -> None:
    for _ in range(2):
        state.signal(Signal.OPENED)
        state.troubled(GONE, 1)
    assert told(logs) == [("warning", "watcher_retrying", "connection refused")] * 2


def test_what_a_standby_survives_is_told_once(state: WatcherState, logs: list[Any]) -> None:
    state.fenced("another one publishes")
    for attempt in (1, 2, 3):
        state.survived(GONE, attempt)
    assert told(logs) == [
        ("warning", "watcher_fenced", "another one publishes"),
        ("warning", "watcher_retrying", "connection refused"),
    ]
    assert state.now is State.FENCED


def test_an_error_of_changewire_itself_is_an_error_with_its_traceback_and_its_words_are_not_a_reason(
    state: WatcherState, logs: list[Any]
) -> None:
    surprise = ZeroDivisionError("may hold a secret")
    for attempt in (1, 2, 3):
        state.troubled(surprise, attempt)
    assert told(logs) == [("error", "watcher_error", None)]
    assert logs[0]["exc_info"] is surprise
    assert "secret" not in str(state.status().last_error)


@pytest.mark.parametrize("error", [HistoryLost("the oplog begins later"), ZeroDivisionError("surprise")])
def test_a_failed_watcher_is_an_error_once(state: WatcherState, logs: list[Any], error: Exception) -> None:
    state.signal(Signal.OPENED)
    state.failed(error)
    state.failed(error)
    (line,) = logs
    assert (line["log_level"], line["event"], line["watcher"]) == ("error", "watcher_failed", "orders")
    assert line["exc_info"] is (None if isinstance(error, HistoryLost) else error)
    assert "surprise" not in line["reason"]
    state.failed(PermanentError("another reason"))
    assert told(logs)[1:] == [("error", "watcher_failed", "another reason")]


def test_what_is_asked_for_is_not_told_here(state: WatcherState, logs: list[Any]) -> None:
    for signal in (Signal.OPENED, Signal.STOP, Signal.START, Signal.OPENED):
        state.signal(signal)
    assert logs == [], "the opening, the task and the audit log tell it"
