"""Collections in memory over a `FakeOplog`: whatever is written is a change there, so that they can be read as of any
moment."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import bson
from bson.binary import Binary
from bson.decimal128 import Decimal128
from bson.int64 import Int64
from bson.max_key import MaxKey
from bson.min_key import MinKey
from bson.objectid import ObjectId

from app.domain.tokens import ClusterTime
from tests.fakes.source import BEGIN, UUID, FakeOplog

Key = tuple[Any, ...]


def order_of(value: Any) -> Key:
    """Return what compares as MongoDB's index of `_id` does: by type first, and all numbers together."""
    match value:
        case MinKey():
            return (-1,)
        case None:
            return (5,)
        case bool():
            return (40, value)
        case int() | float() | Int64() | Decimal128():
            number = float(value.to_decimal()) if isinstance(value, Decimal128) else value
            return (10, 0) if isinstance(number, float) and math.isnan(number) else (10, 1, number)
        case Binary():
            return (30, len(value), value.subtype, bytes(value))
        case bytes():
            return (30, len(value), 0, value)
        case str():
            return (15, value)
        case dict():
            return (20, *((order_of(each)[0], name, order_of(each)) for name, each in value.items()))
        case ObjectId():
            return (35, str(value))
        case datetime():
            return (45, value.timestamp())
        case MaxKey():
            return (127,)
    raise NotImplementedError(f"a key of {type(value)}")


def key_document(value: Any) -> bytes:
    return bson.encode({"_id": value})


def key_value(key: bytes) -> Any:
    return bson.decode(key)["_id"]


@dataclass
class Catalog:
    """Which collections there are: the UUID and the last moment that a name was given, by the name."""

    there: dict[str, tuple[str, int]] = field(default_factory=dict)

    def name_of(self, uuid: str) -> str | None:
        return next((name for name, (other, _) in self.there.items() if other == uuid), None)


@dataclass
class FakeCollections:
    """The collections of one deployment. Every write is one change. Names are such as `shop.orders`.

    `history` is the earliest moment that can be read as of."""

    oplog: FakeOplog
    history: int = 0
    capped: set[str] = field(default_factory=set)
    """Names of collections that are read as they are now, and compared with their changes."""
    _made: int = 0
    _catalog: Catalog = field(default_factory=Catalog)
    _versions: dict[str, dict[bytes, list[tuple[int, dict[str, Any] | None]]]] = field(default_factory=dict)
    """What each document was from a moment on, by the collection's UUID and the key."""

    @property
    def catalog(self) -> Catalog:
        return self._catalog

    def put(self, namespace: str, key: Any, **fields: Any) -> None:
        """Insert a document, or replace it. Its `n` is the moment of the change."""
        uuid = self._uuid(namespace)
        document = {"_id": key, "n": self.oplog.moment + 1, **fields}
        there = self._now(uuid, key) is not None
        self._happen("replace" if there else "insert", namespace, uuid, documentKey={"_id": key}, fullDocument=document)
        self._keep(uuid, key, document)

    def delete(self, namespace: str, key: Any) -> bool:
        """Delete a document; False where it is not there."""
        if namespace not in self._catalog.there or self._now(self._uuid(namespace), key) is None:
            return False
        uuid = self._uuid(namespace)
        self._happen("delete", namespace, uuid, documentKey={"_id": key}, fullDocument=None)
        self._keep(uuid, key, None)
        return True

    def drop(self, namespace: str) -> bool:
        found = self._catalog.there.pop(namespace, None)
        if found is None:
            return False
        self._happen("drop", namespace, found[0], documentKey=None, fullDocument=None)
        return True

    def rename(self, namespace: str, to: str) -> bool:
        """Give a collection a name that no other one has; False where that cannot be done."""
        if namespace not in self._catalog.there or to in self._catalog.there:
            return False
        uuid, _ = self._catalog.there.pop(namespace)
        database, _, collection = to.partition(".")
        self._happen(
            "rename", namespace, uuid, documentKey=None, fullDocument=None, to={"db": database, "coll": collection}
        )
        self._catalog.there[to] = uuid, self.oplog.moment
        return True

    def tick(self) -> None:
        """Let time go on without a change."""
        self.oplog.moment += 1

    def at(self, uuid: str, at: ClusterTime) -> dict[bytes, dict[str, Any]]:
        """Return the documents of a collection as of a cluster time, in the order of their keys."""
        moment = at.seconds - BEGIN - (at.increment < 1)
        found = {
            key: document
            for key, versions in self._versions.get(uuid, {}).items()
            if (document := _version(versions, moment)) is not None
        }
        return {key: found[key] for key in sorted(found, key=lambda key: order_of(key_value(key)))}

    def now(self) -> Iterator[tuple[str, bytes, dict[str, Any]]]:
        """Yield namespace, key and document of all that is there."""
        for namespace, (uuid, _) in self._catalog.there.items():
            for key, document in self.at(uuid, ClusterTime(BEGIN + self.oplog.moment, 1)).items():
                yield namespace, key, document

    def _uuid(self, namespace: str) -> str:
        if namespace not in self._catalog.there:
            self._made += 1
            uuid = UUID[:-4] + f"{self._made:04X}"
            self._catalog.there[namespace] = uuid, self.oplog.moment + 1
        return self._catalog.there[namespace][0]

    def _now(self, uuid: str, key: Any) -> dict[str, Any] | None:
        versions = self._versions.get(uuid, {}).get(key_document(key))
        return versions[-1][1] if versions else None

    def _keep(self, uuid: str, key: Any, document: dict[str, Any] | None) -> None:
        versions = self._versions.setdefault(uuid, {}).setdefault(key_document(key), [])
        versions.append((self.oplog.moment, document))

    def _happen(self, operation: str, namespace: str, uuid: str, **fields: Any) -> None:
        database, _, collection = namespace.partition(".")
        self.oplog.happen(operation, uuid, ns={"db": database, "coll": collection}, **fields)


def _version(versions: list[tuple[int, dict[str, Any] | None]], moment: int) -> dict[str, Any] | None:
    return next((document for begin, document in reversed(versions) if begin <= moment), None)
