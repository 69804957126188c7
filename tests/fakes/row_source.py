"""Rows of collections in memory, as of any moment that their history reaches back to."""

import asyncio
import json
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import bson

from app.domain.errors import CollectionMoved, FieldProblem, Invalid, MomentGone
from app.domain.snapshot import Part
from app.domain.tokens import ClusterTime
from app.domain.watcher import Source
from app.ports import Rows
from tests.fakes.collections import FakeCollections, key_value, order_of
from tests.fakes.source import BEGIN, FakeOplog


class FakeRows:
    """`RowSource`. `most` is how many rows a reply holds. Of a filter it knows fields that equal a value."""

    def __init__(
        self, collections: FakeCollections | None = None, source: Source | None = None, most: int = 1_000
    ) -> None:
        self._collections = collections or FakeCollections(FakeOplog())
        self._source = source or Source("shop")
        self.most = most
        self.faults: deque[BaseException | Callable[[], object] | None] = deque()
        """For each call: what it raises, or what happens right before it."""

    async def _reach(self) -> None:
        await asyncio.sleep(0)
        if self.faults and (fault := self.faults.popleft()) is not None:
            if not isinstance(fault, BaseException):
                fault()
                return
            raise fault

    async def check(self, filter_: Mapping[str, Any] | None, wanted: Sequence[str]) -> None:
        await self._reach()
        problems = [
            FieldProblem(f"collections.{index}", problem)
            for index, namespace in enumerate(wanted)
            if (problem := self._problem(namespace)) is not None
        ]
        if problems:
            raise Invalid(problems=tuple(problems))

    def _problem(self, namespace: str) -> str | None:
        if not self._has(namespace):
            return "is not among the collections that the watcher reads"
        return None if namespace in self._collections.catalog.there else "does not exist"

    def _has(self, namespace: str) -> bool:
        database, _, collection = namespace.partition(".")
        return self._source.has(database, collection)

    async def parts(self, wanted: Sequence[str]) -> list[Part]:
        await self._reach()
        return [
            Part(namespace, uuid.lower(), namespace in self._collections.capped)
            for namespace, (uuid, _) in sorted(self._collections.catalog.there.items())
            if self._has(namespace) and (not wanted or namespace in wanted)
        ]

    async def estimate(self, parts: Sequence[Part]) -> int | None:
        await self._reach()
        return sum(len(self._documents(part, self._present)) for part in parts)

    async def now(self) -> ClusterTime:
        await self._reach()
        return self._present

    async def boundary(self, part: Part, after: bytes | None, count: int) -> bytes | None:
        await self._reach()
        keys = [key for key in self._documents(part, self._present) if _is_after(key, after)]
        index = count if after is None else count - 1
        return keys[index] if len(keys) > index else None

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
        await self._reach()
        there, uuid = self._collections.catalog, str(part.uuid).upper()
        name = there.name_of(uuid)
        if name != part.namespace:
            raise CollectionMoved(name)
        moment = at.seconds - BEGIN - (at.increment < 1)  # of the last change that it has
        if moment < there.there[name][1] or (moment < self._collections.history and not part.capped):
            raise MomentGone("it cannot be read as of that time")
        wanted = json.loads(filter_) if filter_ else {}
        documents = self._documents(part, self._present if part.capped else at)
        found = [
            key
            for key, document in documents.items()
            if _is_after(key, after)
            and (until is None or order_of(key_value(key)) <= order_of(key_value(until)))
            and all(document.get(name) == value for name, value in wanted.items())
        ]
        told = found[: min(limit, self.most)]
        kept, more = told, len(found) > len(told)
        if part.capped:
            kept, all_told = self._unchanged(part, at, told)
            more = more or not all_told
        await asyncio.sleep(0)
        chosen = [bson.encode(documents[key]) for key in kept]
        return Rows(chosen, kept, sum(map(len, chosen)), more=more)

    def _unchanged(self, part: Part, at: ClusterTime, keys: Sequence[bytes]) -> tuple[list[bytes], bool]:
        """Return which documents of a capped collection are what they were: up to one that was updated since, of which
        nobody can tell what it was; whether all are told. Raises MomentGone where none can be."""
        then, now, kept = self._documents(part, at), self._documents(part, self._present), []
        for key in keys:
            if key not in then:
                continue
            if then[key] != now[key]:
                if not kept:
                    raise MomentGone("it is capped, and its documents change while they are read")
                return kept, False
            kept.append(key)
        if keys and not kept:
            raise MomentGone("it is capped, and all that was read is later")
        return kept, True

    @property
    def _present(self) -> ClusterTime:
        return ClusterTime(BEGIN + self._collections.oplog.moment, 1)

    def _documents(self, part: Part, at: ClusterTime) -> dict[bytes, dict[str, Any]]:
        return self._collections.at(str(part.uuid).upper(), at)


def _is_after(key: bytes, after: bytes | None) -> bool:
    return after is None or order_of(key_value(key)) > order_of(key_value(after))
