"""The positions of all watchers that name no place of their own: one collection, one command for many of them.

`_id` is the watcher's name, the other fields are those of `checkpoint_document.py`. Each statement of a command has its
own filter, so that a position never goes back, and one that fails fails its own watcher alone. The reply of an update
tells only how many statements matched. Where that is fewer than were sent, the documents are read back: each statement
leaves the `flush` that it came with, so a watcher is told exactly whether its position was stored.

A name may be given to another collection's watcher later, after the first one was removed. Then what that one left is
no position of the new one: it is not read, and the new one's first position takes its place.
"""

import asyncio
import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal

from bson import ObjectId
from pymongo.errors import AutoReconnect, OperationFailure, WriteConcernError, WTimeoutError
from pymongo.read_concern import ReadConcern

from app.domain.errors import ChangewireError, FieldProblem, ScopeMismatch, StoreUnavailable
from app.mongodb.checkpoint_document import position_of
from app.mongodb.checkpoint_place import problem_of_all
from app.mongodb.codes import already_exists
from app.mongodb.described import described_by, description, uuid_in
from app.mongodb.durable import DURABLE, SECONDS
from app.mongodb.errors import of_command, translated
from app.mongodb.joined import Joined, Request
from app.mongodb.owned import is_named_position, is_of_namespace, position_named, scope_of

if TYPE_CHECKING:
    from motor.motor_asyncio import AsyncIOMotorCollection, AsyncIOMotorDatabase

COLLECTION: Final = "checkpoints"
PAUSE_SECONDS: Final = 0.05
"""The least time between two commands that write. A lone position is written at once, and under load many join."""
_ROUNDS: Final = 4
_DUPLICATE: Final = 11000
_WRITE_TIMED_OUT: Final = 64
Kind = Literal["create", "advance", "note"]
COPIED: Final = "copied"
"""A `home` that no collection has: what was copied to where it was read from stays a copy until it is proved."""


class Look(Request[tuple[Mapping[str, Any] | None, str | None]]):
    """A watcher's stored position, asked for: answered with what is kept, and the collection's UUID."""

    def __init__(self, name: str) -> None:
        super().__init__(256)
        self.name = name


class Write(Request[bool]):
    """One watcher's part of a command that writes.

    `create`: store a first position where there is none. `advance`: store a later one, or the first. `note`: set fields
    beside the stored one, where that is of no later epoch than theirs."""

    def __init__(
        self,
        kind: Kind,
        name: str,
        namespace: str,
        fields: Mapping[str, Any],
        *,
        epoch: int,
        native: bool | None = None,
    ) -> None:
        super().__init__(1024 + 3 * len(fields.get("value", "")) + 256 * len(fields.get("doubt", ())))
        self.kind = kind
        self.name = name
        self.namespace = namespace
        self.fields = fields
        self.epoch = epoch
        self.native = native

    def document(self, home: str | None, flush: ObjectId | None) -> dict[str, Any]:
        """Return the fields as they are stored in the collection with this UUID."""
        own = home if self.native else None if self.native is None else COPIED
        return {**self.fields, "home": own, "flush": flush}

    def statement(self, home: str | None, flush: ObjectId) -> dict[str, Any]:
        """Return the part of an update command that moves the position, or sets fields beside it."""
        there = position_named(self.name)
        if self.kind == "note":
            mine = {"scope": {"$in": [None, scope_of(self.namespace)]}}
            return {"q": {"$and": [there, mine, {"epoch": {"$lte": self.epoch}}]}, "u": {"$set": self.fields}}
        scope = {"scope": {"$in": [None, self.fields["scope"]]}}
        value, row = self.fields["value"], self.fields["row"]
        later = [{"epoch": {"$lt": self.epoch}}, {"epoch": self.epoch, "value": {"$lt": value}}]
        if row is not None:
            same = {"$gte": row, "$lt": f"{value};"}  # this row or a later one of the same token
            later.append({"epoch": self.epoch, "value": value, "row": {"$not": same}})
        return {"q": {"$and": [there, scope, {"$or": later}]}, "u": {"$set": self.document(home, flush)}}

    def is_stored(self, there: Mapping[str, Any], flush: ObjectId) -> bool:
        """Whether it was this write that stored what is there."""
        return there.get("flush") == flush and (there["epoch"], position_of(there)) == self._place

    def refused_by(self, there: Mapping[str, Any]) -> bool:
        """Whether what is stored is of a later epoch, or not earlier."""
        return (there["epoch"], position_of(there)) >= self._place

    @property
    def _place(self) -> tuple[int, str]:
        return self.epoch, position_of(self.fields)


class CheckpointBulk:
    """`<state database>.checkpoints`, as all stores of a process use it."""

    def __init__(self, database: "AsyncIOMotorDatabase[Mapping[str, Any]]") -> None:
        self.database = database
        self.collection: AsyncIOMotorCollection[Mapping[str, Any]] = database.get_collection(COLLECTION, **DURABLE)
        self.grant = f"readWrite on {database.name}"
        self._latest = self.collection.with_options(read_concern=ReadConcern("local"))
        """What refuses a write of ours need not be on a majority yet."""
        self._home: str | None = None
        self._fit = False
        self._reads = Joined[Look](self._read, name="checkpoints:read")
        self._writes = Joined[Write](self._write, name="checkpoints:write", pause=PAUSE_SECONDS)

    async def problem(self) -> FieldProblem | None:
        """Say why no position can be kept here, or return None; that is looked up once. Raises as `read`."""
        if not self._fit:
            with self._guarded("looking at the checkpoints' collection"):
                found = await problem_of_all(self.database, COLLECTION)
            if found is not None:
                return found
            self._fit = True
        return None

    async def read(self, name: str) -> tuple[Mapping[str, Any] | None, str | None]:
        """Return what is kept under a name, and the collection's UUID. Raises StoreUnavailable, NotAuthorised."""
        look = Look(name)
        self._reads.ask(look)
        return await look.answer()

    async def write(self, write: Write) -> bool:
        """Carry out a write; the answer is that of the port. Raises StoreUnavailable, NotAuthorised, ScopeMismatch.

        Where the caller is cancelled, a write that waits for a command is not sent any more. One that is sent ends
        first, as `to_its_end` has it. So a cancelled caller waits for one command, never for two."""
        self._writes.ask(write)
        cancelled: asyncio.CancelledError | None = None
        while not write.done.done():
            try:
                await asyncio.wait([write.done])
            except asyncio.CancelledError as error:
                cancelled = error
                if not write.begun:
                    write.done.cancel()
        if cancelled is None:
            return await write.answer()
        if not write.done.cancelled():
            write.done.exception()  # retrieved, since a cancelled caller has no use for it
        raise cancelled

    async def home(self) -> str | None:
        """Return the collection's UUID; None where there is no collection. Raises what pymongo raises."""
        if self._home is None:
            self._home = await self._look_up_home()
        return self._home

    async def _read(self, looks: Sequence[Look]) -> None:
        with self._guarded("reading the checkpoints"):
            names = list({look.name for look in looks})
            found = _by_name(await self.collection.find({"_id": {"$in": names}}).to_list(None))
            if found:  # in which collection they lie says whether they are copies
                self._home = await self._look_up_home()
        for look in looks:
            document = found.get(look.name)
            look.end((document if document is not None and is_named_position(document) else None, self._home))

    async def _write(self, writes: Sequence[Write]) -> None:
        left = list(writes)
        with self._guarded("storing the checkpoints"):
            await self.home()
            flush = ObjectId()
            for _ in range(_ROUNDS):
                left = await self._round(left, flush)
                if not left:
                    return
        raise StoreUnavailable(f"the checkpoint in {self.collection.full_name} comes and goes: something deletes it")

    async def _round(self, writes: Sequence[Write], flush: ObjectId) -> list[Write]:
        """Carry out what can be, and return what has to be tried again, since others wrote meanwhile."""
        absent = [write for write in writes if write.kind == "create"]
        moves = [write for write in writes if write.kind != "create"]
        again: list[Write] = []
        if moves:
            again, gone = await self._update(moves, flush)
            absent += gone
        if absent:
            again += await self._insert(absent, flush)
        return again

    async def _update(self, writes: Sequence[Write], flush: ObjectId) -> tuple[list[Write], list[Write]]:
        """Carry out the moves; return which to try again, and which have no position to move."""
        statements = [write.statement(self._home, flush) for write in writes]
        reply = await self._command({"update": COLLECTION, "updates": statements, "ordered": False})
        left = _without_failed(writes, reply, self.grant)
        again: list[Write] = []
        absent: list[Write] = []
        if reply["n"] == len(left):
            for write in left:
                write.end(True)
            return again, absent
        there = await self._there(left)
        for write in left:
            document = there.get(write.name)
            if write.kind == "note":
                write.end(True)
            elif document is None or not is_named_position(document) or not is_of_namespace(document, write.namespace):
                absent.append(write)
            elif write.is_stored(document, flush):
                write.end(True)
            elif write.refused_by(document):
                write.end(False)
            elif document.get("scope") not in (None, write.fields["scope"]):
                write.fail(_of_another_deployment(write.name, str(document["scope"])))
            else:
                again.append(write)  # a primary that stepped down stops in the middle
        return again, absent

    async def _insert(self, writes: Sequence[Write], flush: ObjectId) -> list[Write]:
        """Store first positions, and return which to try again."""
        await self._make()
        first = {write.name: write for write in reversed(writes)}
        again: list[Write] = []
        sent = list(first.values())
        documents = [{"_id": write.name, **write.document(self._home, flush)} for write in sent]
        reply = await self._command({"insert": COLLECTION, "documents": documents, "ordered": False})
        taken = {error["index"] for error in reply.get("writeErrors", ()) if error["code"] == _DUPLICATE}
        left = _without_failed(sent, reply, self.grant)
        met = [write for index, write in enumerate(sent) if index in taken]
        met += [write for write in writes if first[write.name] is not write]  # each name is sent once
        there = await self._there(met) if met else {}
        stored = reply["n"] == len(left)  # a primary that stepped down stops in the middle
        for write in left:
            if stored:
                write.end(True)
            else:
                again.append(write)
        for write in met:
            document = there.get(write.name)
            if document is None:
                again.append(write)
            elif not is_named_position(document):
                write.fail(self.taken(write.name))
            elif not is_of_namespace(document, write.namespace):
                again += await self._take_over(write, document, flush)
            elif write.kind == "create":
                write.end(write.is_stored(document, flush))
            else:
                again.append(write)
        return again

    async def _take_over(self, write: Write, document: Mapping[str, Any], flush: ObjectId) -> list[Write]:
        """Put a first position in the place of one that a removed watcher of another collection left."""
        left = {**position_named(write.name), "scope": document["scope"]}
        result = await self.collection.replace_one(left, write.document(self._home, flush))
        if not result.matched_count:
            return [write]
        write.end(True)
        return []

    async def _make(self) -> None:
        """Create the collection where there is none, and learn its UUID."""
        self._home = await self._look_up_home()
        if self._home is None:
            try:
                await self.database.create_collection(COLLECTION, check_exists=False)
            except OperationFailure as error:
                if not already_exists(error):
                    raise
            self._home = await self._look_up_home()

    async def _look_up_home(self) -> str | None:
        return uuid_in(description(await self.database.command(described_by(COLLECTION))))

    async def _there(self, writes: Sequence[Write]) -> dict[str, Mapping[str, Any]]:
        names = list({write.name for write in writes})
        return _by_name(await self._latest.find({"_id": {"$in": names}}).to_list(None))

    async def _command(self, command: dict[str, Any]) -> Mapping[str, Any]:
        """Send a command that writes, twice where the connection breaks: its filters make the second one harmless."""
        command["writeConcern"] = {"w": "majority"}
        try:
            reply: Mapping[str, Any] = await self.database.command(command)
        except AutoReconnect:
            reply = await self.database.command(command)
        concern = reply.get("writeConcernError")
        if concern is not None:
            kind = WTimeoutError if concern.get("code") == _WRITE_TIMED_OUT else WriteConcernError
            raise kind(concern.get("errmsg", ""), concern.get("code"), concern)
        return reply

    def taken(self, name: str) -> ScopeMismatch:
        """Return the error for a name under which something else is kept."""
        return ScopeMismatch(
            f"{self.collection.full_name} holds a document {name!r} that is no position; remove it, or name a "
            "checkpoint.collection for this watcher"
        )

    @contextlib.contextmanager
    def _guarded(self, doing: str) -> Iterator[None]:
        """Translate the errors of what is done within, bounded in time; after one, what is known is looked up again."""
        try:
            with translated(doing, grant=self.grant, kind=StoreUnavailable, seconds=SECONDS):
                yield
        except BaseException:
            self._home = None  # it may have been made again
            raise


def _by_name(documents: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    return {one["_id"]: one for one in documents}


def _without_failed(writes: Sequence[Write], reply: Mapping[str, Any], grant: str) -> list[Write]:
    """Give each write its own error, and return the others; a duplicate is neither."""
    failed = {error["index"]: error for error in reply.get("writeErrors", ())}
    for index, error in failed.items():
        if error["code"] != _DUPLICATE:
            writes[index].fail(_failure(error, grant))
    return [write for index, write in enumerate(writes) if index not in failed]


def _failure(error: Mapping[str, Any], grant: str) -> ChangewireError:
    cause = OperationFailure(error.get("errmsg", ""), error["code"], error)
    failure = of_command(cause, doing="storing the checkpoint", grant=grant, kind=StoreUnavailable)
    failure.__cause__ = cause
    return failure


def _of_another_deployment(name: str, scope: str) -> ScopeMismatch:
    return ScopeMismatch(f"the checkpoint of {name} is by now one of {scope}: another deployment's instance wrote it")
