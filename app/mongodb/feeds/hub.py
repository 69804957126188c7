"""The groups of a deployment: which watcher shares change streams with which others."""

from collections import Counter
from collections.abc import Iterable
from typing import Final

from app.domain.parts import Split
from app.domain.watcher import Watcher
from app.mongodb.change_source import MongoChangeSource
from app.mongodb.feeds.eligible import Kind, kind_of, why_own
from app.mongodb.feeds.filters import Filter
from app.mongodb.feeds.group import Group
from app.mongodb.feeds.room import Room
from app.mongodb.feeds.sharing import SharingSource
from app.mongodb.feeds.views import Views
from app.mongodb.reach import Reach

FEED_BATCH: Final = 1_000
"""The most events of one read of a feed. With more, a quiet watcher's change waits longer behind a hot one's."""


class FeedHub:
    """One deployment's."""

    def __init__(self, reach: Reach, split: Split | None, *, batch_size: int) -> None:
        self._reach = reach
        self._split = split
        self._batch_size = batch_size
        self._room = Room()
        self._groups: dict[Kind, Group] = {}
        self._views: dict[str, Views] = {}
        """By database: its groups ask together."""

    def source(self, watcher: Watcher) -> MongoChangeSource | SharingSource:
        """Return the source of a watcher, shared where it may be."""
        why = why_own(watcher)
        own = MongoChangeSource(watcher, self._reach, batch_size=self._batch_size, why_own=why)
        if why is not None:
            return own
        group = self._group(kind_of(watcher))
        return SharingSource(own, group, watcher, batch_size=self._batch_size)

    def expect(self, watchers: Iterable[Watcher]) -> None:
        """These will be read soon."""
        for watcher in watchers:
            if why_own(watcher) is None:
                self._group(kind_of(watcher)).expect(watcher.name)

    def members(self) -> dict[str, int]:
        """How many watchers read from shared change streams, by database."""
        found = Counter[str]()
        for kind, group in self._groups.items():
            found[kind.database] += group.members
        return dict(found)

    async def close(self) -> None:
        """End every shared change stream. Those who read from one get an error, or read by their own."""
        groups = list(self._groups.values())
        self._groups.clear()
        for group in groups:
            await group.close()

    def _group(self, kind: Kind) -> Group:
        group = self._groups.get(kind)
        if group is None:

            def make_source(wanted: Filter) -> MongoChangeSource:
                feed = Watcher(f"feed of {kind.database}", kind.source(wanted.stages()))
                return MongoChangeSource(feed, self._reach, batch_size=FEED_BATCH, shared=True)

            views = self._views.setdefault(kind.database, Views(self._reach, kind.database))
            group = self._groups[kind] = Group(kind.database, make_source, self._split, self._room, views.seen)
        return group
