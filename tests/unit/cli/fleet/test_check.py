"""The verdict on a fleet: a rewind that publishes again is no doubled change."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from app.cli.fleet.check import epoch_of, joined
from app.cli.traffic import Key, compare
from tests.fakes import event_token

FIRST, SECOND = event_token(1), event_token(2)
A, B, C = (Key("insert", f"r-{number}", number) for number in range(1, 4))


@pytest.mark.parametrize(
    ("name", "epoch"),
    [
        (None, 0),
        (FIRST, 0),
        (f"{FIRST}:3", 3),
        (f"{FIRST}:2:r:{SECOND}", 2),
        (f"{FIRST}:0:s:01:5.0", 0),
        (f"{FIRST}:?", 0),
    ],
)
def test_the_epoch_is_read_from_the_id(name: str | None, epoch: int) -> None:
    headers = None if name is None else {"Nats-Msg-Id": name}
    assert epoch_of(SimpleNamespace(headers=headers)) == epoch


def test_changes_that_a_rewind_published_again_count_once_and_in_their_order() -> None:
    assert joined([(0, A), (0, B), (1, B), (1, C)]) == [A, B, C]
    assert joined([(1, A), (1, B), (1, C)]) == [A, B, C]
    assert joined([]) == []


def test_a_change_that_is_there_twice_in_one_epoch_is_doubled_all_the_same() -> None:
    assert compare([A, B], joined([(0, A), (1, B), (1, B)])).doubled == [B]
