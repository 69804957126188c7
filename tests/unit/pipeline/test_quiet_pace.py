"""How often a quiet position is stored: by what the oplog holds, and by how fast that gives way."""

import pytest

from app.domain.lag import Oplog
from app.pipeline.quiet_pace import QuietPace

GIB = 1024**3
NOW = 1_000_000
DAY = 86_400


def after(*looks: Oplog | None, every: int = 10) -> QuietPace:
    """Return the pace after these looks, the last one at `NOW`."""
    pace = QuietPace()
    for index, oplog in enumerate(looks):
        moment = NOW - every * (len(looks) - 1 - index)
        pace.oplog_seen(oplog, moment, float(moment))
    return pace


@pytest.mark.parametrize(("window", "seconds"), [(7 * DAY, 60.0), (100, 5.0), (0, 0.0), (-1, 0.0)])
def test_a_quiet_position_is_stored_at_least_twenty_times_while_the_oplog_turns_over(
    window: int, seconds: float
) -> None:
    assert after(Oplog(NOW - window, full=True)).seconds == seconds


def test_where_nothing_is_known_it_is_stored_every_ten_seconds() -> None:
    assert QuietPace().seconds == 10.0
    assert after(Oplog(NOW - 7 * DAY, full=True), None).seconds == 10.0


def test_an_oplog_that_is_not_full_yet_and_does_not_grow_is_no_reason_to_hurry() -> None:
    young = Oplog(NOW - 5, full=False, size=GIB, most=50 * GIB)
    assert after(young, young).seconds == 60.0
    assert not after(young, young).hasty


def test_what_is_written_fast_is_followed_before_anything_gives_way() -> None:
    before, now = (Oplog(NOW - 3 * DAY, full=False, size=size, most=10 * GIB) for size in (GIB, 2 * GIB))
    assert after(before, now).seconds == 100 / 20, "ten times as much makes the oplog another one"


def test_an_oplog_of_days_that_goes_within_a_minute_is_followed_while_it_still_reaches_back_for_days() -> None:
    before, now = (Oplog(NOW - days * DAY, full=True, size=GIB, most=GIB) for days in (4, 3))
    assert after(before, now, every=20).seconds == 60 / 20


@pytest.mark.parametrize(
    ("oplog", "hasty"),
    [
        (Oplog(NOW - 300, full=True), True),
        (Oplog(NOW - 3000, full=True), False),
        (Oplog(NOW - 3 * DAY, full=False, size=0, most=GIB - 1), True),
        (Oplog(NOW - 3 * DAY, full=True, size=GIB, most=GIB), False),
    ],
)
def test_an_oplog_that_may_turn_over_soon_is_looked_at_often(oplog: Oplog, hasty: bool) -> None:
    assert after(oplog).hasty is hasty


def test_watchers_do_not_store_their_quiet_positions_all_at_once() -> None:
    drawn = {QuietPace().draw() for _ in range(20)}
    assert len(drawn) > 1
    assert all(0.75 <= share <= 1.0 for share in drawn)
