"""Where a snapshot's rows come from: one watcher's collections, as they were at a cluster time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from app.domain.raw_events import size_of
from app.domain.snapshot import Part
from app.domain.tokens import ClusterTime


@dataclass(slots=True)
class Rows:
    """What one read brought: raw BSON in the order of `_id`, and each one's key, a document with the `_id` alone.

    Where the watcher has a pipeline, each of them is what that made of an insert of the document, with the key as its
    `_id`; else the document itself (`whole`). `size` is their bytes. `more`: the reply was full, and there are others
    between the keys that were asked for.
    """

    documents: Sequence[bytes]
    keys: Sequence[bytes]
    size: int
    whole: bool = True
    more: bool = False

    def only(self, kept: Sequence[int], *, more: bool) -> "Rows":
        """Return some of them, by their indexes."""
        documents = [self.documents[index] for index in kept]
        return Rows(documents, [self.keys[index] for index in kept], size_of(documents), self.whole, more)


class RowSource(Protocol):
    """One watcher's collections. One reader at a time.

    Every method raises SourceUnavailable, NotAuthorised and SourceRefused (a filter or a pipeline that MongoDB refuses;
    this MongoDB cannot be read as of a cluster time). A filter is extended JSON."""

    async def check(self, filter_: Mapping[str, Any] | None, wanted: Sequence[str]) -> None:
        """Look whether a snapshot with this filter of these collections (none: all) can be taken, reading nothing.

        Raises Invalid for what the user has to change: a filter that MongoDB refuses, a collection that is not watched
        or not there, a view, a time series; Conflict where this MongoDB cannot be read as of a cluster time."""

    async def parts(self, wanted: Sequence[str]) -> list[Part]:
        """Return the collections that the watcher reads, or those of them that are wanted, by name; views and time
        series left out."""

    async def estimate(self, parts: Sequence[Part]) -> int | None:
        """Return how many documents they have, roughly; None where that may not be asked."""

    async def now(self) -> ClusterTime:
        """Return the time that MongoDB has: nothing that was read before is later."""

    async def boundary(self, part: Part, after: bytes | None, count: int) -> bytes | None:
        """Return the key that lies `count` documents after a key, about; None where the collection ends before."""

    async def read(
        self,
        part: Part,
        at: ClusterTime,
        *,
        after: bytes | None,
        until: bytes | None,
        limit: int,
        filter_: str | None,
    ) -> Rows:
        """Return the documents with a key after `after` and up to `until` (None: to the end), as of a cluster time: at
        most `limit` of them. Only where none are returned, there are no more: a reply may be full before.

        Raises MomentGone where MongoDB has not got that time (any more), ReadTooLong where it had not enough time for
        so much, CollectionMoved where the collection has another name, or is gone."""
