"""What the demo of many watchers says: few changes by name, many by number, and a row for each database."""

from __future__ import annotations

from app.cli.fleet.plan import watchers
from app.cli.fleet.summary import Seen, changes, counts, states, table
from app.domain.lifecycle import State
from app.domain.status import Lag, Status

RUNNING = Seen(State.RUNNING)


def status(state: State, reason: str | None = None, rate: float = 0.0) -> Status:
    return Status(state, 0.0, reason, rate_10s=rate)


def test_nothing_is_said_of_what_is_as_it_was() -> None:
    assert changes({"a": RUNNING, "b": RUNNING}, {"a": RUNNING, "b": Seen(State.RUNNING, "whatever")}) == []


def test_few_watchers_are_named_with_the_reason() -> None:
    now = {"a": Seen(State.FAILED, "the stream was deleted"), "b": Seen(State.PAUSED, "somebody paused it")}
    assert changes({"a": RUNNING, "b": RUNNING}, now) == [
        "a is FAILED now (it was RUNNING): the stream was deleted",
        "b is PAUSED now (it was RUNNING)",
    ]


def test_many_watchers_are_counted_and_one_reason_is_told() -> None:
    names = [f"w{number}" for number in range(40)]
    before, now = dict.fromkeys(names, RUNNING), dict.fromkeys(names, Seen(State.RETRYING, "NATS is down"))
    assert changes(before, now) == ["40 watchers are RETRYING now (they were RUNNING): NATS is down"]


def test_watchers_that_come_and_go_are_told() -> None:
    assert changes({"a": RUNNING}, {"b": RUNNING}) == ["a was removed", "b was added"]


def test_counts_begin_with_the_most_frequent_state() -> None:
    fleet = {"a": status(State.RUNNING), "b": status(State.FAILED), "c": status(State.RUNNING)}
    assert counts(fleet) == "2 running, 1 failed"
    assert states(fleet)["b"] == Seen(State.FAILED)


def test_a_table_has_a_row_for_each_database_and_leaves_out_who_was_removed() -> None:
    fleet = watchers(6)
    statuses = {each.name: status(State.RUNNING, rate=1.5) for each in fleet[:5]}
    statuses["billing-invoices"] = status(State.FAILED, "gone")
    lags = {"shop-orders": Lag(3.2, None, None, None, None)}
    rows = [line.split() for line in table(fleet, statuses, lags)]
    assert rows[0] == ["database", "watchers", "running", "changes/s", "most", "lag"]
    assert rows[1] == ["shop", "1", "1", "1.5", "3", "s"]
    assert rows[2] == ["billing", "1", "0", "0.0", "-"]
    assert len(rows) == 6
