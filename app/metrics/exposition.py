"""The counted numbers in Prometheus' text format, with the collectors for process, platform and garbage of its client.

Imported at the first scrape: prometheus_client would take its part of every start.
"""

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from app.metrics.kinds import CounterFamily, Family, HistogramFamily


class Exposition(Collector):
    """A registry of its own, which asks `each_family` at each scrape."""

    def __init__(self, each_family: Callable[[Callable[[Family], Metric]], Iterable[Metric]]) -> None:
        self._each_family = each_family
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        GCCollector(registry=self._registry)

    def render(self) -> tuple[bytes, str]:
        """The metrics in the text format, and its content type."""
        return generate_latest(self._registry), CONTENT_TYPE_LATEST

    def collect(self) -> Iterable[Metric]:
        """All families of our own."""
        return self._each_family(_metric)


def _metric(family: Family) -> Metric:
    if isinstance(family, HistogramFamily):
        histograms = HistogramMetricFamily(family.name, family.text, labels=family.labels)
        for labels, histogram in family.series.items():
            histograms.add_metric(labels, histogram.buckets(), histogram.sum)
        return histograms
    metric: CounterMetricFamily | GaugeMetricFamily
    if isinstance(family, CounterFamily):
        metric = CounterMetricFamily(family.name.removesuffix("_total"), family.text, labels=family.labels)
    else:
        metric = GaugeMetricFamily(family.name, family.text, labels=family.labels)
    for labels, value in family.series.items():
        metric.add_metric(labels, value)
    return metric
