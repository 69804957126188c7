"""How often a quiet position is stored: by what the oplog holds."""

import math

import pytest

from app.pipeline.quiet_pace import QuietPace


@pytest.mark.parametrize(
    ("window", "seconds"), [(None, 10.0), (math.inf, 60.0), (7 * 86400.0, 60.0), (100.0, 5.0), (0.0, 0.0), (-1.0, 0.0)]
)
def test_a_quiet_position_is_stored_at_least_twenty_times_while_the_oplog_turns_over(
    window: float | None, seconds: float
) -> None:
    pace = QuietPace()
    pace.oplog_seen(window)
    assert pace.seconds == seconds


def test_watchers_do_not_store_their_quiet_positions_all_at_once() -> None:
    drawn = {QuietPace().draw() for _ in range(20)}
    assert len(drawn) > 1
    assert all(0.75 <= share <= 1.0 for share in drawn)
