"""Which watchers may read from a shared change stream, and which may share one.

Values only.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from app.domain.watcher import Source, Watcher


class Kind(NamedTuple):
    """What has to be equal for watchers to share a change stream."""

    database: str
    full_document: str | None
    full_document_before_change: str | None
    show_expanded_events: bool

    def source(self, pipeline: tuple[Mapping[str, Any], ...]) -> Source:
        """The whole database, with these options."""
        return Source(
            self.database,
            pipeline=pipeline,
            full_document=self.full_document,
            full_document_before_change=self.full_document_before_change,
            show_expanded_events=self.show_expanded_events,
        )


def kind_of(watcher: Watcher) -> Kind:
    source = watcher.source
    return Kind(source.database, source.full_document, source.full_document_before_change, source.show_expanded_events)


def why_own(watcher: Watcher) -> str | None:
    """Say why a watcher has to have a change stream of its own; None where it may share one."""
    source = watcher.source
    if not source.collection:
        return "it watches more than one collection"
    if source.pipeline:
        return "it has a pipeline of its own"
    if "invalidate" in watcher.sink.operations:
        return "it publishes invalidate, which only a collection's own change stream has"
    if "required" in (source.full_document, source.full_document_before_change):
        return "it asks for `required` images: one that is missing ends the change stream"
    return None
