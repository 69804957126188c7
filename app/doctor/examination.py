"""The examination behind `changewire doctor`: both servers, and each watcher on them, by the checks that the service
itself makes before it takes a watcher on.

Begin with `examine`. Its findings come in the order in which you would fix them. Checks that depend on a failed check
are skipped, since they would only repeat it. `app/cli/doctor.py` prints.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from app.config import certificates
from app.config.exposure import open_reads
from app.config.settings import Settings
from app.doctor.sharing import CHECK, Sharing
from app.domain.checkpoint_place import CheckpointPlace
from app.domain.errors import ChangewireError, ScopeMismatch, SourceUnavailable
from app.domain.evidence import claim_of_message
from app.domain.findings import Finding, Level, worst
from app.domain.lag import headroom_seconds, running_out
from app.domain.position import Checkpoint
from app.domain.tokens import token_of
from app.domain.watcher import Watcher
from app.domain.watcher import problems as problems_of
from app.jetstream.account import JetStream
from app.jetstream.connection import NatsConnection
from app.jetstream.examiner import NatsExaminer
from app.jetstream.options import nats_options
from app.mongodb.deployment import MongoDeployment
from app.mongodb.examiner import MongoExaminer, duration
from app.mongodb.pool import asked_for, shortage
from app.pipeline.proof import Proof
from app.pipeline.run_state import RunState

_REWIND: Final = (
    "set the position with PUT /watchers/{0}/token (changewire watchers rewind {0}), and enlarge the oplog "
    "(replSetResizeOplog); set on_history_lost if a marked gap is acceptable"
)


async def examine(settings: Settings) -> AsyncIterator[Finding]:
    """Look at everything the service needs, and yield what is found. Call it where the event loop runs.

    Raises Invalid for a MONGO_URI that is not one.
    """
    mongo = MongoDeployment(settings.mongo_uri.get_secret_value(), state_database=settings.state_db)
    connection = NatsConnection(nats_options(settings))
    connection.start()
    try:
        for finding in (*_of_settings(settings), *certificates.look(settings, datetime.now(UTC))):
            yield finding
        if settings.traces:
            from app.tracing.exporter import look

            yield await asyncio.to_thread(look, settings.otel_exporter_otlp_endpoint)
        asked_mongo, asked_nats = mongo.examiner(), NatsExaminer(connection, len(settings.nats_servers))
        reached = await asked_mongo.reach()
        for finding in reached:
            yield finding
        usable = worst(reached) is not Level.PROBLEM
        state = await asked_mongo.look_at_state(settings.state_db) if usable else None
        known: tuple[list[Watcher], list[Finding], Sharing] | None = None
        if state is not None:
            yield _of_registry(state, settings)
            yield await asked_mongo.look_at_oplog()
            yield await asked_mongo.look_at_streams()
            watchers, wrong = await _watchers(mongo, settings)
            sharing = Sharing(watchers, asked_mongo.privileges, share=settings.shared_streams)
            known = watchers, wrong, sharing
            yield _of_connections(settings, sharing.streams(watchers))
        published_to = await asked_nats.reach()
        connected = published_to[0].level is not Level.PROBLEM
        if connected:
            published_to += await asked_nats.look_at_jetstream()
        for finding in published_to:
            yield finding
        if state is None or known is None:
            yield Finding("watchers", "registry", Level.WARNING, "not checked", "fix MongoDB first")
            return
        watchers, wrong, sharing = known
        if state.level is not Level.PROBLEM:  # else it was said
            for finding in wrong:
                yield finding
        nats_usable = worst(each for each in published_to if each.check != "max_payload") is not Level.PROBLEM
        patient = _Patient(
            mongo, JetStream(connection), asked_mongo, asked_nats if nats_usable else None, settings, sharing
        )
        for watcher in watchers:
            async for finding in patient.look_at(watcher):
                yield finding
    finally:
        await connection.close()
        mongo.close()


def _of_settings(settings: Settings) -> list[Finding]:
    found = [
        Finding("settings", "variables", Level.WARNING, warning, "correct or remove it")
        for warning in settings.warnings
    ]
    exposed = open_reads(settings)
    if exposed is not None:
        found.append(Finding("settings", "reads", Level.WARNING, *exposed))
    if not (settings.loopback or settings.tokens or settings.allow_anonymous):
        found.append(
            Finding(
                "settings", "token", Level.WARNING, "SERVER_ADDR is reachable from outside and there is no API token: "
                "nobody can change watchers", "set CHANGEWIRE_API_TOKEN to the output of: openssl rand -hex 32",
            )
        )  # fmt: skip
    return found


def _of_connections(settings: Settings, streams: int) -> Finding:
    short = shortage(asked_for(settings.mongo_uri.get_secret_value()), streams)
    if short is not None:
        return Finding("MongoDB", "connections", Level.WARNING, short.found, short.advice)
    plural = "s" * (streams != 1)
    return Finding(
        "MongoDB", "connections", Level.OK, f"{streams} change stream{plural} in one instance can each have one"
    )


def _of_registry(state: Finding, settings: Settings) -> Finding:
    """What is wrong with the registry, as far as it is in the way: the file's watchers run without one."""
    if state.level is not Level.PROBLEM or settings.connector is None or not settings.connector.watchers:
        return state
    said = f"{state.found}: the watchers of the configuration file still run, and changes over HTTP are refused"
    return replace(state, level=Level.WARNING, found=said, advice=f"nothing, or {state.advice}")


async def _watchers(mongo: MongoDeployment, settings: Settings) -> tuple[list[Watcher], list[Finding]]:
    """Those of the registry and of `connector.yaml`, which wins; and what of the registry cannot be read."""
    store, stored, wrong = mongo.watchers(), dict[str, Watcher](), list[Finding]()
    try:
        stored = {one.name: one.watcher for one in await store.load()}
    except ChangewireError as error:
        wrong.append(Finding("watchers", "registry", Level.PROBLEM, str(error), "fix MongoDB first"))
    advice = "start the version of Changewire that wrote it, or remove its document from the collection watchers"
    for name in sorted(store.unreadable):
        wrong.append(Finding(name, "definition", Level.PROBLEM, "cannot be read, so it does not run", advice))
    of_file = () if settings.connector is None else settings.connector.watchers
    return list((stored | {one.name: one for one in of_file}).values()), wrong


class _Patient:
    """What one watcher is looked at with."""

    def __init__(
        self,
        mongo: MongoDeployment,
        nats: JetStream,
        asked_mongo: MongoExaminer,
        asked_nats: NatsExaminer | None,
        settings: Settings,
        sharing: Sharing,
    ) -> None:
        self._mongo = mongo
        self._nats = nats
        self._asked_mongo = asked_mongo
        self._asked_nats = asked_nats
        self._settings = settings
        self._sharing = sharing

    async def look_at(self, watcher: Watcher) -> AsyncIterator[Finding]:
        name = watcher.name
        wrong = problems_of(
            watcher,
            state_database=self._settings.state_db,
            javascript=self._settings.allow_server_side_javascript,
        )
        if wrong:
            said = "; ".join(f"{each.field} {each.problem}" for each in wrong)
            yield Finding(name, "definition", Level.PROBLEM, said, f"replace it with PUT /watchers/{name}")
            return
        yield await self._source(watcher)
        scope = await self._asked_mongo.look_at_scope(watcher, self._settings.state_db)
        if scope is not None:
            yield scope
        images = await self._asked_mongo.look_at_images(watcher)
        if images is not None:
            yield images
        checkpoint, position = await self._position(watcher)
        yield position
        if self._asked_nats is None:
            yield Finding(name, "stream", Level.WARNING, "not checked", "fix NATS first")
            return
        try:
            await self._nats.check_sink(watcher)
        except ChangewireError as error:
            yield Finding(name, "stream", Level.PROBLEM, str(error), "fix the stream, or change the watcher's sink")
            return
        published = checkpoint is not None and bool(checkpoint.sequence)
        for finding in await self._asked_nats.look_at_stream(watcher, published=published):
            yield finding
        origin = await self._origin(watcher)
        if origin is not None:
            yield origin

    async def _origin(self, watcher: Watcher) -> Finding | None:
        """Whether the stream ends with a change of this deployment; None where it has none, or nothing tells."""
        source, sink = self._mongo.source(watcher), self._nats.sink(watcher)
        run_state = RunState()
        try:
            own = (await sink.tail()).own
            claim = None if own is None else claim_of_message(own, watcher.sink.stream)
            if claim is None:
                return None
            run_state.prepared(await source.prepare(may_create=False))
            await Proof(source, run_state).of(claim)
        except ScopeMismatch as error:
            return Finding(watcher.name, "origin", Level.PROBLEM, str(error), "see changewire verify")
        except SourceUnavailable as error:
            return Finding(watcher.name, "origin", Level.WARNING, str(error), "run the doctor again in ten seconds")
        except ChangewireError:
            return None  # a change older than the oplog, or trouble that was told above
        finally:
            await source.close()
        return Finding(watcher.name, "origin", Level.OK, "the stream ends with a change of this deployment")

    async def _source(self, watcher: Watcher) -> Finding:
        namespace, role = watcher.source.namespace, "read" if watcher.source.database else "readAnyDatabase"
        if watcher.source.is_scope:
            namespace = f"every collection of {'the deployment' if namespace == '*' else namespace}"
        try:
            await self._mongo.check_source(watcher)
        except ChangewireError as error:
            return Finding(
                watcher.name, CHECK, Level.PROBLEM, str(error),
                f"the account needs find and changeStream on {namespace} (the role {role}); or change the watcher",
            )  # fmt: skip
        return self._sharing.found(watcher, namespace)

    async def _position(self, watcher: Watcher) -> tuple[Checkpoint | None, Finding]:
        kept = watcher.checkpoint or CheckpointPlace(self._settings.state_db, "checkpoints")
        name, place = watcher.name, kept.namespace
        lacking = self._asked_mongo.look_at_checkpoint(watcher, kept)
        if lacking is not None:
            return None, lacking
        store = self._mongo.checkpoints(watcher)
        try:
            await store.check()
            checkpoint = await store.read()
        except ChangewireError as error:
            return None, Finding(name, "checkpoint", Level.PROBLEM, str(error), f"grant readWrite, or free {place}")
        if checkpoint is None:
            found = f"none yet in {place}; it starts at {watcher.start.at}"
            return None, Finding(name, "history", Level.OK, found)
        try:
            await self._mongo.check_token(watcher, token_of(checkpoint.token))
        except ChangewireError as error:
            return checkpoint, Finding(name, "history", Level.PROBLEM, str(error), _REWIND.format(name))
        oplog = self._asked_mongo.oplog
        if oplog is None:
            return checkpoint, Finding(name, "history", Level.OK, "reaches back to its position")
        left = headroom_seconds(checkpoint.token, oplog.first)
        found = f"{duration(left)} of oplog before its position" if left >= 0 else "reaches back to its position"
        if running_out(left, oplog, self._settings.min_headroom_seconds):
            advice = "resume the watcher or enlarge the oplog (replSetResizeOplog) in time"
            return checkpoint, Finding(name, "history", Level.WARNING, found, advice)
        return checkpoint, Finding(name, "history", Level.OK, found)
