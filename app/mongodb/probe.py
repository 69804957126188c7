"""What the deployment is asked all the time: whether it answers, and how far its oplog reaches back."""

import asyncio
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import pymongo
from bson.timestamp import Timestamp
from pymongo.errors import OperationFailure, PyMongoError

from app.domain.errors import SourceUnavailable
from app.domain.lag import Oplog
from app.mongodb.answers import Answers, Misfit
from app.mongodb.codes import Meaning, meaning_of, refuses_account
from app.mongodb.errors import STANDALONE, unreachable, where_allowed
from app.mongodb.words import words

if TYPE_CHECKING:
    from motor.motor_asyncio import AsyncIOMotorClient

PROBE_SECONDS: Final = 1.8
OPLOG_SECONDS: Final = 1.0
"""How long the oplog's first entry is remembered; many watchers ask for it at once."""
_MOST_GONE: Final = 10
"""Reads of the first entry, one after another, each of which may come too late."""
FULL: Final = 0.8
"""The part of its size from which an oplog counts as full: mongod cuts it by a tenth at most at a time."""


class DeploymentProbe:
    """Asks one deployment. Make it where the event loop runs."""

    def __init__(self, client: "AsyncIOMotorClient[Mapping[str, Any]]", answers: Answers | None = None) -> None:
        """`answers` listens to the client's heartbeats."""
        self._client = client
        self._answers = answers or Answers()
        self._lock = asyncio.Lock()
        self._oplog_seen: tuple[float, Timestamp | None] | None = None

    async def ping(self) -> int:
        """See `ports.Mongo`."""
        try:
            with pymongo.timeout(PROBE_SECONDS):
                reply = await self._client.admin.command("ping")
        except PyMongoError as error:
            if refuses_account(error):
                raise SourceUnavailable(f"MongoDB refuses the account in MONGO_URI: {words(error)}") from error
            raise unreachable(error, hint=self._hint()) from error
        if "operationTime" not in reply:
            misfit = self.misfit()
            raise SourceUnavailable(STANDALONE if misfit is None else str(misfit))
        return int(reply["operationTime"].time)

    def misfit(self) -> Misfit | None:
        """Return which server is not what MONGO_URI asks for, where one was heard."""
        return self._answers.misfit(self._client.delegate.topology_description.replica_set_name)

    def _hint(self) -> str:
        misfit = self.misfit()
        return f". {misfit}" if misfit is not None else ""

    async def read_oplog(self) -> Oplog | None:
        """See `ports.Mongo`."""
        first = await self.oplog_first()
        if first is None:
            return None
        size, most = await self._oplog_size()
        return Oplog(first.time, full=size >= FULL * most, size=size, most=most)

    async def oplog_first(self, max_age: float = OPLOG_SECONDS) -> Timestamp | None:
        """Return the first entry's cluster time, no older than `max_age` seconds; None where the account may not read
        it or where mongos has none to show. Raises SourceUnavailable."""
        async with self._lock:
            now = time.monotonic()
            if self._oplog_seen is None or now - self._oplog_seen[0] > max_age:
                self._oplog_seen = (now, await self._read_oplog_first())
            return self._oplog_seen[1]

    async def _read_oplog_first(self) -> Timestamp | None:
        entry: Mapping[str, Any] | None = None
        with where_allowed("reading the oplog", seconds=PROBE_SECONDS):
            entry = await self._find_oplog_first()
        return None if entry is None else entry["ts"]

    async def _find_oplog_first(self) -> Mapping[str, Any] | None:
        """Read the first entry. It may go while it is read: no refusal, and the next one is the first then."""
        for _ in range(_MOST_GONE):
            try:
                return await self._client.local["oplog.rs"].find_one({}, {"ts": 1}, sort=[("$natural", 1)])
            except OperationFailure as error:
                if meaning_of(error) is not Meaning.HISTORY_LOST:
                    raise
        raise SourceUnavailable("the oplog's first entry goes faster than it can be read")

    async def _oplog_size(self) -> tuple[int, int]:
        """Return how many bytes it holds and may hold; 0 of 0, which is full, where the account may not know: a warning
        too many is better."""
        with where_allowed("asking how large the oplog is", seconds=PROBE_SECONDS):
            stats = await self._client.local.command("collStats", "oplog.rs")
            return int(stats["size"]), int(stats.get("maxSize", stats["size"]))
        return 0, 0
