"""The MongoDB deployment as a whole: how it is reached, what it is asked before a watcher is taken on, and who gets
which part of it.

Import motor through this module: its executor takes its size from the environment when it is first imported, and every
watcher that waits for events holds one of its threads.

Not its business: reading a stream (`change_source.py`), keeping state (`checkpoint_store.py`).
"""

import asyncio
import contextlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl

# Threads come on demand; one per watcher that waits, so well above the watchers of one process.
os.environ.setdefault("MOTOR_MAX_WORKERS", "512")

import pymongo
from bson.binary import UUID_SUBTYPE, Binary
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.timestamp import Timestamp
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo import monitoring
from pymongo.errors import ConfigurationError, OperationFailure, PyMongoError

from app.config.addresses import mongo_uri_problem
from app.domain.errors import (
    FieldProblem,
    Invalid,
    PermanentError,
    SourceUnavailable,
    TransientError,
    Unavailable,
)
from app.domain.lag import Oplog
from app.domain.tokens import cluster_time, collection_uuid
from app.domain.watcher import SYSTEM_DATABASES, Watcher, javascript_in
from app.mongodb import errors as mongo_errors
from app.mongodb import pipeline as mongo_pipeline
from app.mongodb.bounded import run_bounded
from app.mongodb.change_source import BATCH_SIZE, MongoChangeSource
from app.mongodb.checkpoint_store import MongoCheckpointStore
from app.mongodb.trial import Reach, StreamTrial, parse_pipeline, prefer_pinned
from app.mongodb.watcher_store import MongoWatcherStore
from app.ports import Observer

if TYPE_CHECKING:
    from app.mongodb.examiner import MongoExaminer

PING_SECONDS: Final = 1.8
OPLOG_SECONDS: Final = 1.0
"""How long the oplog's first entry is remembered; many watchers ask for it at once."""
FULL: Final = 0.8
"""The part of its size from which an oplog counts as full: mongod cuts it by a tenth at most at a time."""
OPTIONS: Final[Mapping[str, Any]] = {
    "appname": "changewire",
    "maxPoolSize": int(os.environ["MOTOR_MAX_WORKERS"]),
    "connectTimeoutMS": 2_000,
    "serverSelectionTimeoutMS": 2_000,
    # A frozen server is noticed by its heartbeat, after three seconds, and then every read on it is broken off. This
    # is for a connection that dies alone; it has to leave room for a server that scans its oplog before it answers.
    "heartbeatFrequencyMS": 1_000,
    "socketTimeoutMS": 20_000,
    "retryReads": True,
    "retryWrites": True,
}
"""The URI's own options win."""
PATIENT_SOCKET_MS: Final = 3_600_000
_QUIET = frozenset({"hello", "ismaster", "isMaster", "ping"})
_DOCUMENTS_WIRE_VERSION: Final = 14  # MongoDB 5.1: $documents


class MongoDeployment:
    """`Mongo`: the deployment that the watchers of this process read, with the state kept in it.

    `batch_size` is the events of one read. Make it where the event loop runs. Raises Invalid for a URI that is not one.
    """

    def __init__(
        self, uri: str, *, state_database: str, observer: Observer | None = None, batch_size: int = BATCH_SIZE
    ) -> None:
        self._uri = uri
        self._state_database = state_database
        self._listeners = [] if observer is None else [_CommandListener(observer)]
        self._batch_size = batch_size
        self._client = self._connect()
        self._patient_client: AsyncIOMotorClient[Mapping[str, Any]] | None = None
        self._reach = Reach(self._client, self._patient, self._oplog_first)
        self._oplog_lock = asyncio.Lock()
        self._oplog_seen: tuple[float, Timestamp | None] | None = None

    def _connect(self, **more: Any) -> AsyncIOMotorClient[Mapping[str, Any]]:
        named = {name.lower() for name, _ in parse_qsl(self._uri.partition("?")[2], keep_blank_values=True)}
        options = {name: value for name, value in OPTIONS.items() if name.lower() not in named} | more
        try:
            return AsyncIOMotorClient(
                self._uri, event_listeners=self._listeners, server_selector=prefer_pinned, **options
            )
        except (ConfigurationError, ValueError, TypeError) as error:
            problem = mongo_uri_problem(self._uri) or "is not a MongoDB connection string"
            problem += "; write for example mongodb://user:password@host:27017/?replicaSet=rs0"
            raise Invalid(problems=(FieldProblem("MONGO_URI", problem),)) from error

    def _patient(self) -> AsyncIOMotorClient[Mapping[str, Any]]:
        if self._patient_client is None:
            self._patient_client = self._connect(socketTimeoutMS=PATIENT_SOCKET_MS)
        return self._patient_client

    def close(self) -> None:
        """Close every connection; the sources and stores of this deployment are of no use afterwards."""
        self._client.close()
        if self._patient_client is not None:
            self._patient_client.close()

    def source(self, watcher: Watcher) -> MongoChangeSource:
        return MongoChangeSource(watcher, self._reach, batch_size=self._batch_size)

    def checkpoints(self, watcher: Watcher) -> MongoCheckpointStore:
        place = watcher.checkpoint
        return MongoCheckpointStore(
            self._client[place.database], place, namespace=watcher.source.namespace, registry=self._state_database
        )

    def watchers(self) -> MongoWatcherStore:
        """The registry's store, `watchers` in the state database."""
        return MongoWatcherStore(self._client[self._state_database])

    def examiner(self) -> "MongoExaminer":
        """What `changewire doctor` asks."""
        from app.mongodb.examiner import MongoExaminer  # the service never does

        return MongoExaminer(self._client, self.ping, self.read_oplog)

    async def ping(self) -> int:
        try:
            with pymongo.timeout(PING_SECONDS):
                reply = await self._client.admin.command("ping")
        except PyMongoError as error:
            raise SourceUnavailable(f"MongoDB cannot be reached: {self._why_not(error)}") from error
        if "operationTime" not in reply:
            raise SourceUnavailable(mongo_errors.STANDALONE)
        return int(reply["operationTime"].time)

    def _why_not(self, error: PyMongoError) -> str:
        """The error's words; where a server answers that is no member of the replica set asked for, with that."""
        words = mongo_errors.words(error)
        topology = self._client.delegate.topology_description
        if topology.topology_type_name == "ReplicaSetNoPrimary" and not topology.server_descriptions():
            words += (
                f". What answers is no member of a replica set {topology.replica_set_name}: a standalone server (which "
                "needs --replSet and rs.initiate()), or a member of a set with another name"
            )
        return words

    async def read_oplog(self) -> Oplog | None:
        first = await self._oplog_first()
        return None if first is None else Oplog(first.time, await self._oplog_is_full())

    async def _oplog_is_full(self) -> bool:
        try:
            with pymongo.timeout(PING_SECONDS):
                stats = await self._client.local.command("collStats", "oplog.rs")
        except PyMongoError as error:
            if isinstance(error, OperationFailure) and not mongo_errors.passing(error):
                return True  # may be: who cannot know had better be warned
            raise SourceUnavailable(f"the oplog cannot be read: {mongo_errors.words(error)}") from error
        return bool(stats["size"] >= FULL * stats.get("maxSize", stats["size"]))

    async def _oplog_first(self, max_age: float = OPLOG_SECONDS) -> Timestamp | None:
        """The first entry's cluster time; None where the account may not read it or where mongos has none to show."""
        async with self._oplog_lock:
            now = time.monotonic()
            if self._oplog_seen is None or now - self._oplog_seen[0] > max_age:
                self._oplog_seen = (now, await self._read_oplog_first())
            return self._oplog_seen[1]

    async def _read_oplog_first(self) -> Timestamp | None:
        oplog = self._client.local["oplog.rs"]
        try:
            with pymongo.timeout(PING_SECONDS):
                entry = await oplog.find_one({}, {"ts": 1}, sort=[("$natural", 1)])
        except PyMongoError as error:
            if isinstance(error, OperationFailure) and not mongo_errors.passing(error):
                return None
            raise SourceUnavailable(f"the oplog cannot be read: {mongo_errors.words(error)}") from error
        return None if entry is None else entry["ts"]

    # Before a watcher is taken on.

    async def check_source(self, watcher: Watcher) -> None:
        if watcher.source.database in SYSTEM_DATABASES:
            problem = f"is {watcher.source.database}, a system database, which has no change streams for users"
            raise _invalid("source.database", problem)
        pipeline = parse_pipeline(watcher.source.pipeline)
        trial = StreamTrial(watcher, self._reach)
        with _refusals(watcher, "source"):
            await trial.prepare(may_create=False)
            await self._refuse_other_case(watcher)
            objection = await trial.objection()
        if objection is not None:
            part, words = objection
            field = "source.pipeline" if part == "pipeline" else "source"
            raise _invalid(field, f"MongoDB refuses the {part}: {words}")
        await self._refuse_missing_images(watcher)
        lost = mongo_pipeline.objection(pipeline)
        if lost is None and mongo_pipeline.reshapes(pipeline) and trial.wire_version >= _DOCUMENTS_WIRE_VERSION:
            lost = await self._lost_on_samples(watcher, pipeline)
        if lost is not None:
            raise _invalid("source.pipeline", lost)

    async def _refuse_other_case(self, watcher: Watcher) -> None:
        """Refuse a database that MongoDB would refuse to create: it tells no two apart by case alone."""
        wanted = {"source.database": watcher.source.database, "checkpoint.database": watcher.checkpoint.database}
        lower = [name.lower() for name in wanted.values()]
        listed = await self._ask_or_none(
            "admin",
            {"listDatabases": 1, "nameOnly": True, "filter": {"$expr": {"$in": [{"$toLower": "$name"}, lower]}}},
        )
        there = [str(entry["name"]) for entry in (listed or {}).get("databases", ())]
        for field, name in wanted.items():
            twin = next((other for other in there if other.lower() == name.lower()), name)
            if name not in there and twin != name:
                problem = f"is {name}, but there is a database {twin}: MongoDB allows no two that differ in case alone"
                raise _invalid(field, f"{problem}; write {twin}, or choose another name")

    async def _refuse_missing_images(self, watcher: Watcher) -> None:
        """Refuse images that are required and that nobody switches on: the first change would end the stream."""
        source, name = watcher.source, watcher.source.collection
        required = [
            field for field in ("full_document", "full_document_before_change") if getattr(source, field) == "required"
        ]
        if not required or source.pre_and_post_images:
            return
        listed = await self._ask_or_none(source.database, {"listCollections": 1, "filter": {"name": name}})
        if listed is None:
            return
        found = listed["cursor"]["firstBatch"]
        if found and found[0].get("options", {}).get("changeStreamPreAndPostImages", {}).get("enabled"):
            return
        images, quoted = "changeStreamPreAndPostImages: {enabled: true}", json.dumps(name)
        state = "keeps no pre- and post-images" if found else "does not exist yet and would keep no images"
        command = f"{{collMod: {quoted}, {images}}}" if found else f"{{create: {quoted}, {images}}}"
        raise _invalid(
            f"source.{required[0]}",
            f"is `required`, but {source.namespace} {state}: set source.pre_and_post_images to true, run "
            f"db.runCommand({command}) in {source.database}, or ask for `whenAvailable`",
        )

    async def _ask_or_none(self, database: str, command: dict[str, Any]) -> Mapping[str, Any] | None:
        """Run a command whose answer helps, and is not open to every account. Raises Unavailable."""
        try:
            with pymongo.timeout(PING_SECONDS):
                reply: Mapping[str, Any] = await self._client[database].command(command)
        except PyMongoError as error:
            if mongo_errors.passing(error):
                raise Unavailable(f"MongoDB cannot be reached: {mongo_errors.words(error)}") from error
            return None
        return reply

    async def _lost_on_samples(self, watcher: Watcher, pipeline: list[dict[str, Any]]) -> str | None:
        """Run the pipeline over made-up events, and tell what it takes from them.

        What only chooses events is left out, since it may choose none of them. A pipeline that cannot run on made-up
        values proves nothing: the stream itself watches for what is missing (`change_source.py`). One that does not
        come to an end is not tried again.
        """
        stages = [stage for stage in pipeline if "$match" not in stage]
        samples = [mongo_pipeline.sample(watcher, operation) for operation in mongo_pipeline.SAMPLED]
        javascript = javascript_in(pipeline)
        left = 1 if javascript else 1 + len(samples)
        events: list[dict[str, Any]] = []
        for some in [samples, *([one] for one in samples)][:left]:  # what fails on a delete may run on an insert
            try:
                events += await self._run(watcher, some, stages)
            except OperationFailure as error:
                if error.code != mongo_errors.MAX_TIME_EXPIRED:
                    continue
                if javascript:
                    problem = (
                        f"runs JavaScript ({javascript}) that did not end within {PING_SECONDS} s on made-up events"
                    )
                    raise _invalid("source.pipeline", problem) from error
                break
            except PyMongoError:
                break
            if some is samples:
                break
        return next(filter(None, (mongo_pipeline.loss(event, samples) for event in events)), None)

    async def _run(
        self, watcher: Watcher, samples: list[dict[str, Any]], pipeline: list[dict[str, Any]]
    ) -> list[dict[str, Any]]:
        command = {"aggregate": 1, "pipeline": [{"$documents": samples}, *pipeline], "cursor": {}}
        reply = await run_bounded(self._client, watcher.source.database, command, seconds=PING_SECONDS)
        return list(reply["cursor"]["firstBatch"])

    async def check_token(self, watcher: Watcher, token: str) -> None:
        trial = StreamTrial(watcher, self._reach)
        with _refusals(watcher, "token"):
            moment = cluster_time(token)
            now = await trial.prepare(may_create=False)
            if moment.seconds > now:
                when, clock = mongo_errors.iso(moment.seconds), mongo_errors.iso(now)
                raise _invalid(
                    "token", f"is of another deployment: it lies in the future, {when}; MongoDB's clock says {clock}"
                )
            owner = await self._owner(watcher, token)
            if owner is not None and owner != watcher.source.namespace:
                raise _invalid("token", f"belongs to {owner}, not to {watcher.source.namespace}")
            await trial.verify(token)

    async def _owner(self, watcher: Watcher, token: str) -> str | None:
        """Return the namespace an event's token belongs to, as far as can be told; None for a high-water mark.

        By the collection's UUID: the watched collection's own; else the namespace that the oplog gives the moment (it
        may be an earlier incarnation of the watched one, or one since renamed); else a neighbour in the database.
        """
        uuid = collection_uuid(token)
        if uuid is None:
            return None
        binary = Binary(bytes.fromhex(uuid), UUID_SUBTYPE)
        database = self._client[watcher.source.database]
        neighbours: list[str] = []
        moment = cluster_time(token)
        ts = Timestamp(moment.seconds, moment.increment)
        try:
            with pymongo.timeout(PING_SECONDS):
                listed = await database.command({"listCollections": 1, "filter": {"info.uuid": binary}})
                neighbours = [f"{database.name}.{entry['name']}" for entry in listed["cursor"]["firstBatch"]]
                if watcher.source.namespace in neighbours:
                    return watcher.source.namespace
                oplog = self._client.local.get_collection("oplog.rs", codec_options=_LENIENT)
                entry = await oplog.find_one({"ts": {"$gte": ts}}, _OWNER_FIELDS, sort=[("$natural", 1)])
        except PyMongoError as error:
            if mongo_errors.passing(error):
                raise mongo_errors.unavailable(error, doing="looking the token up", grant="") from error
            entry = None  # neither is open to every account; without them the server's own opinion has to do
        owner = _namespace_of(entry, binary) if entry is not None and entry["ts"] == ts else None
        return owner or (neighbours[0] if neighbours else None)


_LENIENT: Final[CodecOptions[dict[str, Any]]] = CodecOptions(
    datetime_conversion=DatetimeConversion.DATETIME_AUTO, unicode_decode_error_handler="replace"
)
_OWNER_FIELDS: Final = dict.fromkeys(
    ("ts", "ns", "ui", "o.applyOps.ns", "o.applyOps.ui", "o.drop", "o.create", "o.collMod", "o.renameCollection"), 1
)


def _namespace_of(entry: Mapping[str, Any], uuid: Binary) -> str | None:
    """Return the namespace that an oplog entry (write, transaction, command) gives the collection with this UUID."""
    change = entry.get("o") or {}
    for write in change.get("applyOps", ()):
        if write.get("ui") == uuid:
            return str(write["ns"])
    if entry.get("ui") != uuid:
        return None
    database, _, rest = str(entry["ns"]).partition(".")
    if rest != "$cmd":
        return str(entry["ns"])
    if "renameCollection" in change:
        return str(change["renameCollection"])
    return next((f"{database}.{change[name]}" for name in ("drop", "create", "collMod") if name in change), None)


def _invalid(field: str, problem: str) -> Invalid:
    return Invalid(problems=(FieldProblem(field, problem),))


@contextlib.contextmanager
def _refusals(watcher: Watcher, field: str) -> Iterator[None]:
    """Turn what a stream says when it is opened into the answer to a request.

    Trouble with the server or with the service's own account is Unavailable, all else Invalid on `field`.
    """
    try:
        try:
            yield
        except PyMongoError as error:
            known = mongo_errors.of_stream(error, watcher.source)
            raise known or SourceUnavailable(f"MongoDB failed: {mongo_errors.quiet_words(error)}") from error
    except TransientError as error:
        raise Unavailable(str(error)) from error
    except PermanentError as error:
        if isinstance(error.__cause__, OperationFailure) and error.__cause__.code in mongo_errors.BAD_CREDENTIALS:
            raise Unavailable(str(error)) from error
        raise _invalid(field, str(error)) from error


class _CommandListener(monitoring.CommandListener):
    """Tells the observer of every command; runs on motor's threads. What a probe sends all the time is left out."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        if event.command_name not in _QUIET:
            self._observer.command_started(event.database_name, event.command_name)

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        if event.command_name not in _QUIET:
            self._observer.command_succeeded(event.database_name, event.command_name, event.duration_micros / 1e6)

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        if event.command_name in _QUIET:
            return
        seconds = event.duration_micros / 1e6
        if event.command_name == "create" and event.failure.get("code") == mongo_errors.NAMESPACE_EXISTS:
            # It is there, and more was not wanted.
            self._observer.command_succeeded(event.database_name, event.command_name, seconds)
        else:
            self._observer.command_failed(event.database_name, event.command_name, seconds)
