"""The kinds of metrics: counters, gauges and bulk histograms, each a name, a help text, labels, and series of values.

Plain data, so that counting needs no prometheus_client.
"""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Collection, Sequence
from math import fsum
from typing import Generic, TypeVar

Labels = tuple[str, ...]

GO_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
"""The Go client's default buckets, which mongodb-nats-connector's histograms have."""
DELAY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200)
SIZE_BUCKETS = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1000)


class Histogram:
    """One bulk histogram: `observe` takes a value and how often it came."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float, count: int = 1) -> None:
        self.counts[bisect_left(self.bounds, value)] += count
        self.sum += value * count

    def observe_since(self, moments: Sequence[float], now: float) -> None:
        """Observe how long before `now` each moment was. They are sorted; one of 0.0 is not known and left out.

        One bisection per bucket instead of one per moment.
        """
        first, end = bisect_right(moments, 0.0), len(moments)
        later = bisect_right(moments, now, first)  # clocks differ: a moment ahead of ours counts as no delay
        self.sum += (later - first) * now - fsum(moments[first:later])
        for index, bound in enumerate(self.bounds):
            within = bisect_left(moments, now - bound, first, end)
            self.counts[index] += end - within
            end = within
        self.counts[-1] += end - first

    def buckets(self) -> list[tuple[str, float]]:
        """Cumulative counts by upper bound, written as the Go client writes them."""
        total, buckets = 0, []
        for bound, count in zip((*(f"{bound:g}" for bound in self.bounds), "+Inf"), self.counts, strict=True):
            total += count
            buckets.append((bound, float(total)))
        return buckets


S = TypeVar("S", bound="float | Histogram")


class _Family(Generic[S]):
    """A name, and what it counts by the values of its labels."""

    def __init__(self, name: str, text: str, labels: Labels, series: dict[Labels, S]) -> None:
        self.name, self.text, self.labels, self.series = name, text, labels, series

    def drop(self, place: int, values: Collection[str]) -> None:
        """Remove the series of which the label at `place` has one of these values."""
        for labels in [labels for labels in self.series if labels[place] in values]:
            del self.series[labels]


class CounterFamily(_Family[float]):
    """Counters of one name by their labels."""

    def __init__(self, name: str, text: str, labels: Labels) -> None:
        super().__init__(name, text, labels, defaultdict(float))


class HistogramFamily(_Family[Histogram]):
    """Bulk histograms of one name by their labels."""

    def __init__(self, name: str, text: str, labels: Labels, bounds: Sequence[float] = GO_BUCKETS) -> None:
        super().__init__(name, text, labels, defaultdict(lambda: Histogram(bounds)))
        self.bounds_text = (*(f"{bound:g}" for bound in bounds), "+Inf")
        """The buckets' upper bounds, written as the Go client writes them."""


class GaugeFamily(_Family[float]):
    """Gauges of one name by their labels; a watcher whose value is not known has none."""

    def __init__(self, name: str, text: str, labels: Labels = ("watcher",)) -> None:
        super().__init__(name, text, labels, {})

    def set(self, watcher: str, value: float | None) -> None:
        if value is None:
            self.series.pop((watcher,), None)
        else:
            self.series[(watcher,)] = value


Family = CounterFamily | HistogramFamily | GaugeFamily
