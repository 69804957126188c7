"""What a watcher weighs follows what lasts, and is told only where it has changed a lot."""

import pytest

from app.domain.measured import FLOOR, SMOOTHED_OVER_SECONDS, Smoothed, worth_telling


def measured(smoothed: Smoothed, rate: float, seconds: float, step: float = 1.0) -> float:
    for _ in range(round(seconds / step)):
        smoothed.add(round(rate * step), step)
    return smoothed.weight


def test_a_lasting_change_arrives_within_some_minutes_and_a_burst_does_not() -> None:
    assert 620 < measured(Smoothed(), 1000, SMOOTHED_OVER_SECONDS) < 640
    assert 940 < measured(Smoothed(), 1000, 3 * SMOOTHED_OVER_SECONDS) < 960
    assert measured(Smoothed(100), 1000, 3) < 110


def test_a_weight_is_the_same_however_often_it_is_measured() -> None:
    often, rarely = Smoothed(50), Smoothed(50)
    assert measured(often, 200, 600, step=0.5) == pytest.approx(measured(rarely, 200, 600, step=60))


def test_a_watcher_that_moves_keeps_the_weight_that_was_told() -> None:
    assert Smoothed(400).weight == 400
    assert measured(Smoothed(400), 400, 5) == pytest.approx(400)


def test_a_watcher_without_changes_falls_to_the_floor_and_no_lower() -> None:
    quiet = Smoothed(400)
    assert measured(quiet, 0, 10 * SMOOTHED_OVER_SECONDS, step=10) == FLOOR
    assert Smoothed(0).weight == FLOOR
    assert measured(quiet, 1000, SMOOTHED_OVER_SECONDS) > 600, "it comes back as fast as any other"


@pytest.mark.parametrize("seconds", [0.0, -3.0])
def test_events_of_no_time_are_counted_with_the_next_ones(seconds: float) -> None:
    one, other = Smoothed(), Smoothed()
    one.add(100, seconds)
    assert one.weight == FLOOR
    one.add(0, 10)
    other.add(100, 10)
    assert one.weight == other.weight > FLOOR


def test_a_weight_is_told_again_after_it_has_changed_by_half() -> None:
    assert not worth_telling(100, 149)
    assert worth_telling(100, 150)
    assert not worth_telling(150, 101)
    assert worth_telling(150, 100)


def test_below_the_floor_nothing_is_worth_telling() -> None:
    assert not worth_telling(0, 1.4)
    assert not worth_telling(0.1, 0.9)
    assert not worth_telling(1.4, 0)
    assert worth_telling(0, 2)


def test_noise_about_what_was_told_is_never_told() -> None:
    told, writes = 100.0, 0
    for step in range(1000):
        now = 200 * (1.15 if step % 2 else 0.85)
        if worth_telling(told, now):
            told, writes = now, writes + 1
    assert writes == 1
