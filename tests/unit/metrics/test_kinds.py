"""The kinds of metrics: bulk histograms that equal counting one by one, and series that go when their label goes."""

import random

import pytest

from app.metrics.kinds import DELAY_BUCKETS, GO_BUCKETS, CounterFamily, GaugeFamily, Histogram

NOW = 1_700_000_000.0


def test_observing_moments_equals_observing_each() -> None:
    generator = random.Random(7)
    for _ in range(200):
        moments = sorted(
            generator.choice([0.0, NOW - generator.randrange(10 ** generator.randrange(1, 7)) / 1000 - 0.0003, NOW + 1])
            for _ in range(generator.randrange(50))
        )
        whole, single = Histogram(DELAY_BUCKETS), Histogram(DELAY_BUCKETS)
        whole.observe_since(moments, NOW)
        for moment in moments:
            if moment:
                single.observe(max(0.0, NOW - moment))
        assert whole.counts == single.counts
        assert whole.sum == pytest.approx(single.sum, abs=1e-3)


def test_bulk_histogram_counts_the_bound_itself_in() -> None:
    histogram = Histogram(GO_BUCKETS)
    histogram.observe(0.005, 3)
    histogram.observe(11)
    assert histogram.buckets()[0] == ("0.005", 3.0)
    assert histogram.buckets()[-2:] == [("10", 3.0), ("+Inf", 4.0)]


def test_series_are_dropped_by_one_label_and_others_stay() -> None:
    family = CounterFamily("x_total", "X.", ("collection", "subject"))
    for labels in (("orders", "A.insert"), ("orders", "B.insert"), ("B.insert", "C.insert")):
        family.series[labels] += 1
    family.drop(-1, {"B.insert", "D.insert"})
    assert dict(family.series) == {("orders", "A.insert"): 1, ("B.insert", "C.insert"): 1}


def test_a_gauge_whose_value_is_not_known_has_no_series() -> None:
    family = GaugeFamily("x", "X.")
    family.set("w", None)
    family.set("w", 1.5)
    assert family.series == {("w",): 1.5}
    family.set("w", None)
    assert family.series == {}
