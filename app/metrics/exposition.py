"""The counted numbers in Prometheus' text format, with the collectors for process, platform and garbage of its client.

Imported at the first scrape: prometheus_client would take its part of every start. Our own families are written by
`text.py`.
"""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from app.metrics.text import Seen, written


class Exposition:
    """What is not ours, in a registry of its own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        GCCollector(registry=self._registry)

    def render(self, families: Iterable[Seen]) -> tuple[bytes, str]:
        """The metrics in the text format, and its content type."""
        own = "".join(map(written, families)).encode()
        return own + generate_latest(self._registry), CONTENT_TYPE_LATEST
