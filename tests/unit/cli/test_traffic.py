"""The demo's verdict: every write once, in order, or what is wrong by name."""

from __future__ import annotations

import pytest

from app.cli.traffic import Key, compare, key_of, line, on_their_way, shortfall, totals

A, B, C = Key("insert", "r-1", 1), Key("update", "r-1", 2), Key("delete", "r-1", None)


def test_every_write_once_and_in_order_is_right() -> None:
    verdict = compare([A, B, C], [A, B, C])
    assert verdict.right
    assert str(verdict) == "3 writes, 3 messages: every one once, in order"


@pytest.mark.parametrize(
    ("received", "said"),
    [
        ([A, C], "3 writes, 2 messages; 1 lost (update r-1)"),
        ([A, B, B, C], "3 writes, 4 messages; 1 doubled (update r-1)"),
        ([B, A, C], "3 writes, 3 messages; 1 reordered (insert r-1)"),
        ([A, B, C, Key("insert", "r-9", 9)], "3 writes, 4 messages; 1 unknown (insert r-9)"),
        ([], "3 writes, 0 messages; 3 lost (insert r-1, update r-1, delete r-1)"),
    ],
)
def test_what_is_wrong_is_named(received: list[Key], said: str) -> None:
    verdict = compare([A, B, C], received)
    assert not verdict.right
    assert str(verdict) == said


def test_one_is_no_plural_and_what_is_in_flight_is_no_loss() -> None:
    assert totals(1, 1) == "1 write, 1 message"
    assert totals(2, 1_000) == "2 writes, 1,000 messages"
    assert str(compare([A], [A])) == "1 write, 1 message: every one once, in order"
    assert on_their_way([A, B, C], [A], {B}) == 1


def test_rate_that_was_not_reached_is_told_and_one_that_was_is_not() -> None:
    assert shortfall(9_000, 3, 5_000) == "this machine made 3,000 writes a second instead of 5,000"
    assert shortfall(15_000, 3, 5_000) is None
    assert shortfall(1, 0.01, 0.5) is None
    assert shortfall(0, 0, 2) is None


def test_write_that_ended_in_an_error_may_be_missing_but_not_twice() -> None:
    assert compare([A, B, C], [A, C], {B}).right
    assert compare([A, B, C], [A, B, C], {B}).right
    assert not compare([A, B, C], [A, B, B, C], {B}).right


def test_keys_and_lines_of_messages() -> None:
    insert = {
        "operationType": "insert", "documentKey": {"_id": "r-1"}, "wallTime": {"$date": "2023-11-14T22:13:20.5Z"},
        "fullDocument": {"number": 1, "table": 4, "quantity": 2, "item": "soup", "total": 13.8},
    }  # fmt: skip
    update = insert | {
        "operationType": "update",
        "updateDescription": {"updatedFields": {"number": 2, "status": "paid"}},
    }
    delete = insert | {"operationType": "delete", "fullDocument": None}
    assert [key_of(each) for each in (insert, update, delete)] == [A, B, C]
    shown = line("ORDERS.insert", 7, insert, 1_700_000_000.502)
    assert shown.split() == [
        "ORDERS.insert",
        "#7",
        "r-1",
        "table",
        "4",
        "orders",
        "2",
        "×",
        "soup,",
        "13.80",
        "2",
        "ms",
    ]
    assert "now paid" in line("ORDERS.update", 8, update, 1_700_000_001)
    assert "closed" in line("ORDERS.delete", 9, delete, 1_700_000_001)
