"""What is scraped is written as Prometheus' own client writes it."""

import math

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from app.metrics.kinds import CounterFamily, Family, GaugeFamily, HistogramFamily
from app.metrics.text import seen, written

NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
NUMBERS = st.one_of(st.floats(0, allow_nan=False, allow_infinity=False), st.integers(0, 2**40).map(float))


class Theirs(Collector):
    """A family, written by Prometheus' client."""

    def __init__(self, family: Family) -> None:
        self.family = family

    def collect(self):
        family = self.family
        if isinstance(family, HistogramFamily):
            made = HistogramMetricFamily(family.name, family.text, labels=family.labels)
            for labels, histogram in family.series.items():
                made.add_metric(labels, histogram.buckets(), histogram.sum)
            yield made
            return
        kind = CounterMetricFamily if isinstance(family, CounterFamily) else GaugeMetricFamily
        plain = kind(family.name.removesuffix("_total"), family.text, labels=family.labels)
        for labels, value in family.series.items():
            plain.add_metric(labels, value)
        yield plain


def assert_the_same(family: Family) -> None:
    assert written(seen(family)) == generate_latest(Theirs(family)).decode()


@given(st.dictionaries(st.tuples(NAMES, NAMES), NUMBERS, max_size=4))
def test_a_counter_is_written_as_by_the_client(series: dict[tuple[str, str], float]) -> None:
    family = CounterFamily("changewire_x_total", "One\nand a \\ of it.", ("watcher", "reason"))
    family.series.update(series.items())
    assert_the_same(family)


@given(st.dictionaries(NAMES, NUMBERS, max_size=4))
def test_a_gauge_is_written_as_by_the_client(series: dict[str, float]) -> None:
    family = GaugeFamily("changewire_x", "One.")
    for watcher, value in series.items():
        family.set(watcher, value)
    assert_the_same(family)


@given(st.dictionaries(st.tuples(NAMES, NAMES), st.lists(NUMBERS, max_size=5), max_size=3))
def test_a_histogram_is_written_as_by_the_client(series: dict[tuple[str, str], list[float]]) -> None:
    family = HistogramFamily("changewire_x_seconds", "One.", ("collection", "subject"))
    for labels, values in series.items():
        for value in values:
            family.series[labels].observe(value, 3)
    assert_the_same(family)


def test_what_is_counted_later_does_not_change_what_was_seen() -> None:
    family = HistogramFamily("x", "One.", ("watcher",))
    family.series[("w",)].observe(1.0)
    now = seen(family)
    before = written(now)
    family.series[("w",)].observe(math.pi)
    assert written(now) == before
