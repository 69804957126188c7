"""What is shown of a watcher's runs: counted right, and the same for everyone who asks and how often."""

import copy

import pytest

from app.domain.lifecycle import State
from app.domain.overdue import PATIENCE_SECONDS
from app.domain.status import Happening
from app.pipeline.run_statistics import REMEMBERED, Rates, RunStatistics


def test_rates_forget_what_is_a_minute_old() -> None:
    rates = Rates()
    rates.add(100, 1_000.0)
    rates.add(50, 1_005.9)
    assert rates.per_second(10, 1_006.0) == 15.0
    assert rates.per_second(60, 1_006.0) == 2.5
    assert rates.per_second(10, 1_012.0) == 5.0
    assert rates.per_second(60, 1_100.0) == 0.0


@pytest.mark.parametrize("window", [1, 10, 60])
def test_a_rate_is_the_mean_of_its_seconds_at_every_moment(window: int) -> None:
    """Against the plain sum, over pauses longer than a minute and clocks that are set back."""
    rates, added = Rates(), {}
    for second in (*range(1_000, 1_070, 3), 1_071, 1_200, 1_201, 1_190, 1_259, 1_261, 1_321):
        rates.add(second % 7 + 1, second + 0.5)
        added[second] = added.get(second, 0) + second % 7 + 1
        newest = max(added)
        for now in (newest, newest + 1, newest + 30, newest + 59, newest + 60, newest + 200):
            kept = [count for at, count in added.items() if now - window < at <= now and at > newest - 60]
            assert rates.per_second(window, now + 0.9) == sum(kept) / window


def test_asking_for_a_rate_changes_nothing() -> None:
    rates = Rates()
    rates.add(100, 1_000.0)
    before = copy.deepcopy(rates)
    assert rates.per_second(10, 1_500.0) == 0.0
    assert rates == before
    assert rates.per_second(10, 1_000.0) == 10.0, "as it was asked before"


def test_what_is_published_is_counted_and_is_progress() -> None:
    statistics = RunStatistics()
    statistics.overdue.changes_read(100.0)
    later = 100.0 + PATIENCE_SECONDS + 1
    assert statistics.overdue.problem(later) is not None
    statistics.add_published(3, 99.5, later)
    statistics.add_published(2, 101.5, later)
    assert (statistics.published, statistics.last_event_at) == (5, 101.5)
    assert statistics.rates.per_second(10, later) == 0.5
    assert statistics.overdue.problem(later) is None


def test_dead_letters_are_unknown_until_one_is_counted() -> None:
    statistics = RunStatistics()
    assert statistics.dead_letters is None
    statistics.add_dead_letter()
    statistics.add_dead_letter()
    assert statistics.dead_letters == 2


def test_a_stream_that_takes_the_fast_mode_again_loses_its_note() -> None:
    statistics = RunStatistics()
    statistics.note("gap", "a gap")
    statistics.publishes("window", exclusive=True, slower="slower")
    assert (statistics.publish_mode, statistics.fence) == ("window", "stream")
    assert statistics.notes == {"gap": "a gap", "mode": "slower"}
    statistics.publishes("atomic", exclusive=True, slower=None)
    assert statistics.notes == {"gap": "a gap"}


def test_a_watcher_that_is_moved_has_no_stored_position_that_would_still_be_shown() -> None:
    statistics = RunStatistics(stored_token="82", checkpointed_at=5.0, published=3)
    statistics.forget_position()
    assert statistics == RunStatistics(published=3)


def test_what_happens_again_and_again_is_one_entry_and_the_oldest_are_forgotten() -> None:
    statistics = RunStatistics()
    for at in (1.0, 2.0, 3.0):
        statistics.happened(State.RETRYING, "no answer", at)
    statistics.happened(State.RUNNING, None, 4.0)
    statistics.happened(State.RUNNING, None, 5.0)
    assert list(statistics.history) == [
        Happening(State.RETRYING, 1.0, 3.0, "no answer", 3),
        Happening(State.RUNNING, 4.0, 4.0),
    ]
    for at in range(2 * REMEMBERED):
        statistics.happened(State.RETRYING, f"reason {at}", float(at))
    assert len(statistics.history) == REMEMBERED
    assert statistics.history[-1].reason == f"reason {2 * REMEMBERED - 1}"
