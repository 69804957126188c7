"""Watchers by what two of them could conflict about, so that one is compared with a few others instead of with all.

`near` names every watcher with which `overlap.refuse_overlap` could find a conflict, and few more. What a conflict is
decided there alone; this module only says who need not be asked. Each of its indexes stands for one of the questions
there: the same subjects, a stream's name, a place for positions that somebody watches or keeps another position in.
"""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import Protocol

from app.domain.buckets import OBJECTS, bucket_of
from app.domain.dead_letters import letters_of, letters_space
from app.domain.watcher import Source, StoredWatcher, Watcher


class Others(Protocol):
    """The watchers beside which one has to stand, however many they are."""

    def near(self, watcher: Watcher) -> Iterable[Watcher]:
        """Return those with which this one could conflict."""


class OverlapIndex:
    """Stored watchers by name, in the order in which they were added."""

    def __init__(self, watchers: Iterable[StoredWatcher] = ()) -> None:
        self._stored: dict[str, StoredWatcher] = {}
        self._subjects, self._letters = _Subjects(), _Subjects()
        self._streams = _Names()
        self._watches = _Names()
        self._keeps = _Names()
        for stored in watchers:
            self.put(stored)

    def __iter__(self) -> Iterator[StoredWatcher]:
        return iter(sorted(self._stored.values(), key=order))

    def __contains__(self, name: str) -> bool:
        return name in self._stored

    def __getitem__(self, name: str) -> StoredWatcher:
        return self._stored[name]

    def __len__(self) -> int:
        return len(self._stored)

    def put(self, stored: StoredWatcher) -> None:
        """Take a watcher in, instead of the one of its name."""
        before = self._stored.get(stored.name)
        if before is None or before.watcher != stored.watcher:
            if before is not None:
                self.drop(stored.name)
            name, watcher = stored.name, stored.watcher
            self._subjects.add([watcher.space], name)
            self._letters.add(_letters(watcher), name)
            self._streams.add(_streams(watcher), name)
            self._watches.add([_watched(watcher.source)], name)
            self._keeps.add(_kept(watcher), name)
        self._stored[stored.name] = stored

    def drop(self, name: str) -> None:
        """Take a watcher out; fine where it is not in."""
        before = self._stored.pop(name, None)
        if before is not None:
            watcher = before.watcher
            self._subjects.remove([watcher.space], name)
            self._letters.remove(_letters(watcher), name)
            self._streams.remove(_streams(watcher), name)
            self._watches.remove([_watched(watcher.source)], name)
            self._keeps.remove(_kept(watcher), name)

    def near(self, watcher: Watcher) -> list[StoredWatcher]:
        """Return those with which a watcher could conflict, in the order in which they were added. It is
        among them itself where it is in the index."""
        found = self._subjects.meet([watcher.space, *_letters(watcher)]) | self._letters.meet([watcher.space])
        found |= self._streams.of(_streams(watcher))
        found |= self._keeps.of([_watched(watcher.source), *_places(watcher)])
        found |= self._watches.of(_kept(watcher))
        return sorted((self._stored[name] for name in found), key=order)


def order(stored: StoredWatcher) -> tuple[int, str]:
    """The order of watchers: of two that conflict the later one is refused."""
    return stored.added, stored.name


def _letters(watcher: Watcher) -> list[str]:
    """What covers all subjects that are in the way of a watcher's dead letters (`dead_letters.meets_letters`)."""
    first = letters_space(watcher.sink.stream).partition(".")[0]
    return [first, f"{first}.>"]


def _streams(watcher: Watcher) -> list[Hashable]:
    """The names of the streams that a watcher publishes to, or that Changewire makes for it when they are needed."""
    stream = watcher.sink.stream
    letters = letters_of(stream)
    return [stream, letters, OBJECTS + bucket_of(stream), OBJECTS + bucket_of(letters)]


def _watched(source: Source) -> Hashable:
    """What a source reads: a collection, a database, or the deployment."""
    return source.database, source.collection


def _places(watcher: Watcher) -> list[Hashable]:
    """The collections in which a watcher's positions are kept: one, or one for each of several entries."""
    return list(dict.fromkeys((place.database, place.collection) for place in watcher.places))


def _kept(watcher: Watcher) -> list[Hashable]:
    """Where its positions are kept: the collections first, then all that a watcher may read of which they are parts.

    Nothing for a watcher that names no place: its position is beside those of all others, where nobody reads."""
    if not watcher.places:
        return []
    databases = dict.fromkeys(place.database for place in watcher.places)
    return [*_places(watcher), *((database, "") for database in databases), ("", "")]


class _Names:
    """Watchers by single values."""

    def __init__(self) -> None:
        self._by: defaultdict[Hashable, set[str]] = defaultdict(set)

    def add(self, values: Iterable[Hashable], name: str) -> None:
        for value in values:
            self._by[value].add(name)

    def remove(self, values: Iterable[Hashable], name: str) -> None:
        for value in values:
            left = self._by[value]
            left.discard(name)
            if not left:
                del self._by[value]

    def of(self, values: Iterable[Hashable]) -> set[str]:
        return set[str]().union(*(self._by[value] for value in values if value in self._by))


class _Node:
    """A place in the tree of subjects: what follows by its first part, and the watchers whose filter ends here."""

    __slots__ = ("ends", "next")

    def __init__(self) -> None:
        self.next: dict[str, _Node] = {}
        self.ends: set[str] = set()


class _Subjects:
    """Watchers by a filter of subjects: a tree with one level for each part."""

    def __init__(self) -> None:
        self._root = _Node()

    def add(self, filters: Iterable[str], name: str) -> None:
        for each in filters:
            node = self._root
            for part in each.split("."):
                node = node.next.setdefault(part, _Node())
            node.ends.add(name)

    def remove(self, filters: Iterable[str], name: str) -> None:
        for each in filters:
            path, node = [], self._root
            for part in each.split("."):
                path.append((node, part))
                node = node.next[part]
            node.ends.discard(name)
            for above, part in reversed(path):
                if above.next[part].next or above.next[part].ends:
                    break
                del above.next[part]

    def meet(self, filters: Iterable[str]) -> set[str]:
        """Return whose filters match a subject that one of `filters` matches too; as `subjects.overlap`."""
        return set[str]().union(*(self._meet(each.split(".")) for each in filters))

    def _meet(self, parts: Sequence[str]) -> set[str]:
        found: set[str] = set()
        left = [(self._root, 0)]  # a list, not recursion: a subject may have two thousand parts
        while left:
            node, depth = left.pop()
            if depth == len(parts):
                found |= node.ends
                continue
            part = parts[depth]
            if ">" in node.next:
                found |= node.next[">"].ends
            if part == ">":
                found |= _all_below(node)
            elif part == "*":
                left += [(below, depth + 1) for below in node.next.values()]
            else:
                left += [(node.next[same], depth + 1) for same in (part, "*") if same in node.next]
        return found


def _all_below(node: _Node) -> set[str]:
    found: set[str] = set()
    left = list(node.next.values())
    while left:
        below = left.pop()
        found |= below.ends
        left += below.next.values()
    return found
