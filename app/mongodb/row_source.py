"""The rows of a snapshot: collections read in the order of `_id`, as they were at a cluster time.

A read is one `find` with `readConcern: {level: snapshot, atClusterTime}` (MongoDB 5.0 and later), or an `aggregate`
where the watcher has a pipeline (`row_commands.py`). A filter may fit few documents, and a read that looks for many of
them would keep the changes waiting. So with a filter or a pipeline a read gets both ends: `boundary` finds the upper
one in the index alone. Capped collections are read in another way (`capped_rows.py`).

From MongoDB 6.0 on a read names the collection's UUID, so that it fails where another collection has the name by now,
and says where this one went.
"""

import contextlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final

import pymongo
from bson.raw_bson import RawBSONDocument
from bson.timestamp import Timestamp
from pymongo.errors import OperationFailure, PyMongoError

from app.domain.errors import (
    ChangewireError,
    CollectionMoved,
    Conflict,
    FieldProblem,
    Invalid,
    MomentGone,
    ReadTooLong,
    SourceRefused,
)
from app.domain.snapshot import Part
from app.domain.tokens import ClusterTime
from app.domain.watcher import Watcher
from app.mongodb.capped_rows import as_of_then, changed_since
from app.mongodb.codes import MAX_TIME_EXPIRED, Meaning, meaning_of
from app.mongodb.cursor import CLOSE_SECONDS, RAW
from app.mongodb.described import described_by, description, time_in, uuid_in
from app.mongodb.errors import of_command, resource_of, translated
from app.mongodb.pinning import Pin, pinned
from app.mongodb.probe import PROBE_SECONDS
from app.mongodb.raw_reply import read_documents
from app.mongodb.reach import Reach
from app.mongodb.row_commands import find_boundary, find_rows, keys_in, of_uuid, piped_rows
from app.mongodb.stream import Target, parse_pipeline
from app.mongodb.words import quiet_words
from app.ports.row_source import Rows

MONGODB_5_0: Final = 13
MONGODB_6_0: Final = 17
TOO_OLD: Final = frozenset({239, 246})
"""SnapshotTooOld; SnapshotUnavailable, which also comes of a collection that was created or renamed since."""
OTHER_UUID: Final = 361
"""CollectionUUIDMismatch."""
NO_NAMESPACE: Final = 26
CANNOT_BE_DONE: Final = frozenset({241, 291, 292})
"""ConversionFailure, NoQueryExecutionPlans, QueryExceededMemoryLimitNoDiskUseAllowed: what a filter or a pipeline fails
with once it is tried on documents."""
_REFUSALS: Final = (Meaning.PARSER, Meaning.UNSPECIFIED, Meaning.NO_CHANGE_STREAM, Meaning.EVENT_TOO_LARGE)
ESTIMATE_SECONDS: Final = 1.0
"""How long the documents of many collections are counted."""


class MongoRowSource:
    """`RowSource`: one watcher's collections."""

    def __init__(self, watcher: Watcher, reach: Reach) -> None:
        self._source = watcher.source
        self._reach = reach
        self._grant = f"find on {resource_of(watcher.source)}"
        databases = watcher.source.database or "every database"
        self._grant_lists = f"listCollections on {databases} (the role read has it)"
        self._version = 0

    async def check(self, filter_: Mapping[str, Any] | None, wanted: Sequence[str]) -> None:
        try:
            await self._check_version()
        except SourceRefused as error:
            raise Conflict(str(error)) from error
        if self._source.collection and (problem := await self._why_no_rows(self._source.namespace, may_lack=True)):
            raise Conflict(f"{self._source.namespace} {problem}")
        found = [*(await self._problems(wanted))]
        if not found and (filter_ or self._source.pipeline):
            found += await self._tried(filter_, wanted)
        if found:
            raise Invalid(problems=tuple(found))

    async def _problems(self, wanted: Sequence[str]) -> list[FieldProblem]:
        """Say what is wrong with the collections that are asked for."""
        problems = []
        for index, namespace in enumerate(wanted):
            if not self._source.has(*_split(namespace)):
                problem: str | None = "is not among the collections that the watcher reads"
            else:
                problem = await self._why_no_rows(namespace)
            if problem is not None:
                problems.append(FieldProblem(f"collections.{index}", problem))
        return problems

    async def _described(self, namespace: str) -> Mapping[str, Any] | None:
        database, collection = _split(namespace)
        with translated(f"looking at {namespace}", grant=self._grant_lists, seconds=PROBE_SECONDS):
            return description(await self._reach.client[database].command(described_by(collection)))

    async def _why_no_rows(self, namespace: str, *, may_lack: bool = False) -> str | None:
        """Say in a sentence why a collection cannot be read row by row; `may_lack`: it need not exist."""
        described = await self._described(namespace)
        if described is None:
            return None if may_lack else "does not exist"
        return _NO_ROWS.get(described.get("type", ""))

    async def _tried(self, filter_: Mapping[str, Any] | None, wanted: Sequence[str]) -> list[FieldProblem]:
        """Have MongoDB parse the filter and the pipeline, and plan the read, without reading. Raises Conflict for a
        pipeline that reads no documents."""
        try:
            parse_pipeline([filter_] if filter_ else [])
        except Invalid as error:
            return [FieldProblem("filter", error.problems[0].problem)]
        text = json.dumps(filter_) if filter_ else None
        part = Part(await self._any_of(wanted))
        if text and (refused := await self._explained(part, find_rows(part, **_ALL, filter_=text))):
            return [FieldProblem("filter", f"is refused by MongoDB: {refused}")]
        if self._source.pipeline:
            now = ClusterTime(1, 1)
            refused = await self._explained(part, piped_rows(part, now, self._source.pipeline, **_ALL, filter_=text))
            if refused and text:
                return [FieldProblem("filter", f"is refused by MongoDB, before the watcher's pipeline: {refused}")]
            if refused:
                raise Conflict(f"the watcher's pipeline cannot be used on documents: {refused}")
        return []

    async def _any_of(self, wanted: Sequence[str]) -> str:
        """Return the name of a collection of those that are read, of one that exists where there is one."""
        if wanted or self._source.named:
            return wanted[0] if wanted else ".".join(self._source.named[0])
        with translated("listing the collections of a snapshot", grant=self._grant_lists, seconds=PROBE_SECONDS):
            async for part in self._listed():
                return part.namespace
        return f"{self._source.database or 'test'}.snapshot"

    async def _explained(self, part: Part, command: dict[str, Any]) -> str | None:
        """Return the words that MongoDB refuses a read with."""
        for option in ("batchSize", "comment", "maxTimeMS", "singleBatch"):
            command.pop(option, None)
        try:
            with pymongo.timeout(PROBE_SECONDS):
                database = self._reach.client[_split(part.namespace)[0]]
                await database.command("explain", command, verbosity="queryPlanner")
        except OperationFailure as error:
            if meaning_of(error) in _REFUSALS or error.code in CANNOT_BE_DONE:
                return quiet_words(error)
            raise of_command(error, doing="trying the filter", grant=self._grant) from error
        except PyMongoError as error:
            raise of_command(error, doing="trying the filter", grant=self._grant) from error
        return None

    async def parts(self, wanted: Sequence[str]) -> list[Part]:
        with translated("listing the collections of a snapshot", grant=self._grant_lists):
            found = [part async for part in self._listed()]
        return [part for part in found if not wanted or part.namespace in wanted]

    async def _listed(self) -> AsyncIterator[Part]:
        client, source = self._reach.client, self._source
        databases = [source.database] if source.database else await client.list_database_names()
        for database in sorted(databases):
            if database == self._reach.state_database or not (source.database or source.has_database(database)):
                continue
            only = {"name": source.collection} if source.collection else {"type": "collection"}
            there = await (await client[database].list_collections(filter=only)).to_list(None)
            for each in sorted(there, key=lambda info: str(info["name"])):
                name, options = each["name"], each.get("options", {})
                if each.get("type") == "collection" and source.has(database, name):
                    yield Part(
                        f"{database}.{name}", uuid_in(each), bool(options.get("capped")), "clusteredIndex" in options
                    )

    async def estimate(self, parts: Sequence[Part]) -> int | None:
        total = 0
        try:
            with pymongo.timeout(ESTIMATE_SECONDS):
                for part in parts:
                    database, collection = _split(part.namespace)
                    total += int((await self._reach.client[database].command("count", collection))["n"])
        except PyMongoError:
            return None
        return total

    async def now(self) -> ClusterTime:
        with translated("asking for the time", seconds=PROBE_SECONDS):
            return time_in(await self._reach.hello.ask())

    async def boundary(self, part: Part, after: bytes | None, count: int) -> bytes | None:
        reply = await self._ask(part, find_boundary(part, after, count))
        found = keys_in([bytes(each.raw) for each in reply["cursor"]["firstBatch"]], whole=True)
        return found[0] if found else None

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
        whole = not self._source.pipeline

        async def ask(concern: Mapping[str, Any], after: bytes | None) -> tuple[Rows, RawBSONDocument]:
            if whole:
                command = find_rows(part, after=after, until=until, limit=limit, filter_=filter_)
            else:
                command = piped_rows(
                    part, at, self._source.pipeline, after=after, until=until, limit=limit, filter_=filter_
                )
            reply = await self._ask(part, command | {"readConcern": concern})
            found, cursor = read_documents(bytes(reply.raw))  # no copy: a whole reply is bytes
            documents = found[:limit]
            more = bool(cursor) or len(found) > limit
            keys = keys_in(documents, whole=whole)
            return Rows(documents, keys, documents.size, whole, more), reply

        time = Timestamp(at.seconds, at.increment)
        if not part.capped:
            rows = (await ask({"level": "snapshot", "atClusterTime": time}, after))[0]
            ended = not rows.keys and until is None
            # A read that cannot name the UUID finds no documents of what is gone, and MongoDB says no more.
            if ended and (await self._check_version()) < MONGODB_6_0 and not await self._is_there(part):
                raise CollectionMoved(None)
            return rows
        while True:
            rows, reply = await ask({"level": "majority", "afterClusterTime": time}, after)
            try:
                now = reply["operationTime"]
                changed = await changed_since(self._reach.client, part, at, now) if rows.keys else {}
            except PyMongoError as error:
                raise await self._why(error, part) from error
            kept, all_told = as_of_then(rows.keys, changed)
            if kept or not rows.keys:
                return rows.only(kept, more=rows.more or not all_told)
            if not all_told:
                raise MomentGone(f"{part.namespace} is capped, and its documents change while they are read")
            if until is not None and not rows.more:
                return rows.only([], more=False)
            after = rows.keys[-1]  # all of them are later than that time

    async def _is_there(self, part: Part) -> bool:
        """Whether its name is still that of this collection. It may be a view's by now."""
        described = await self._described(part.namespace)
        is_one = (described or {}).get("type") == "collection"
        return is_one and uuid_in(described) == (part.uuid or uuid_in(described))

    async def _ask(self, part: Part, command: dict[str, Any]) -> RawBSONDocument:
        """Send a read, and leave no cursor behind. Raises as `read`."""
        if (await self._check_version()) >= MONGODB_6_0:
            command |= of_uuid(part)
        database, pin = self._reach.client[_split(part.namespace)[0]], Pin()
        try:
            with pinned(pin):
                reply: RawBSONDocument = await database.command(command, codec_options=RAW)
        except PyMongoError as error:
            raise await self._why(error, part) from error
        if "singleBatch" not in command and (cursor := int(reply["cursor"]["id"])):
            kill = Target(*_split(part.namespace)).kill(cursor)
            with pinned(pin), contextlib.suppress(PyMongoError), pymongo.timeout(CLOSE_SECONDS):
                await database.command(kill)
        return reply

    async def _check_version(self) -> int:
        """Return the server's maxWireVersion. Raises SourceRefused where it is too early."""
        if not self._version:
            with translated("asking MongoDB what it is", seconds=PROBE_SECONDS):
                self._version = int((await self._reach.hello.ask())["maxWireVersion"])
        if self._version < MONGODB_5_0:
            raise SourceRefused(
                "a snapshot needs MongoDB 5.0 or later: earlier ones cannot be read as of a cluster time outside of a "
                "transaction"
            )
        return self._version

    async def _why(self, error: PyMongoError, part: Part) -> ChangewireError:
        """Return what a read that failed raises."""
        doing = f"reading {part.namespace}"
        if not isinstance(error, OperationFailure):
            return of_command(error, doing=doing, grant=self._grant)
        if error.code == OTHER_UUID:
            name = (error.details or {}).get("actualCollection")
            return CollectionMoved(None if name is None else f"{_split(part.namespace)[0]}.{name}")
        if error.code == NO_NAMESPACE:
            return CollectionMoved(None)
        if error.code == MAX_TIME_EXPIRED:
            return ReadTooLong(f"MongoDB did not read so much of {part.namespace} in time: {quiet_words(error)}")
        too_old, meaning = error.code in TOO_OLD, meaning_of(error)
        if too_old or meaning in _REFUSALS or error.code in CANNOT_BE_DONE:
            if not await self._is_there(part):
                return CollectionMoved(None)  # such as a view by now, or capped: MongoDB does not say so by its code
            if too_old:
                return MomentGone(f"MongoDB cannot read {part.namespace} as of that time: {quiet_words(error)}")
            return SourceRefused(f"MongoDB refuses to read {part.namespace} so: {quiet_words(error)}")
        return of_command(error, doing=doing, grant=self._grant)


def _split(namespace: str) -> tuple[str, str]:
    database, _, collection = namespace.partition(".")
    return database, collection


_ALL: Final[Mapping[str, Any]] = {"after": None, "until": None, "limit": 1}
"""A read of everything, as it is tried."""
_NO_ROWS: Final[Mapping[str, str]] = {
    "view": "is a view, which has no documents of its own; take a snapshot of what it is made from",
    "timeseries": "is a time series, which has no change stream",
}
