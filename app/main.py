"""How all of it is put together: the one place that knows servers, watchers and HTTP at once.

`compose` makes the service from its settings. Nothing is connected before it starts, and it waits for servers that are
absent then. `interface` makes the HTTP interface to it, and is the only place that imports FastAPI: that takes long,
and the watchers run before it (decision 0016). `cli/serve.py` is the process around both.
"""

import asyncio
import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import structlog

from app import __version__
from app.config.settings import Settings
from app.control.admission import Rules
from app.control.registry import Registry, Times
from app.control.share import Share
from app.domain import instances
from app.formats import native
from app.formats.extended_json import encode, identify, names_of, reduced
from app.jetstream.account import JetStream
from app.jetstream.connection import NatsConnection
from app.jetstream.options import nats_options
from app.jetstream.peers import JetStreamPeers, Member, subjects_of
from app.metrics.observer import PrometheusObserver
from app.mongodb.deployment import MongoDeployment
from app.pipeline.batch_encoder import Codec
from app.pipeline.dependencies import Dependencies, Tuning
from app.pipeline.snapshot_limits import SnapshotLimits
from app.ports.peers import Circle

if TYPE_CHECKING:
    from fastapi import FastAPI

    from app.api import Lifespan
    from app.ports import Tracing
    from app.ports.tracer import Tracer

log = structlog.get_logger(__name__)


class Service:
    """The service without its HTTP interface: watchers, their registry, both connections. Make it with `compose`."""

    def __init__(
        self,
        settings: Settings,
        registry: Registry,
        mongo: MongoDeployment,
        connection: NatsConnection,
        observer: PrometheusObserver,
        tracer: "Tracer | None" = None,
    ) -> None:
        self.settings = settings
        self.registry = registry
        self.peers = JetStreamPeers(connection, Member(registry.share.name, settings.nats_prefix, self._circle))
        self._mongo = mongo
        self._connection = connection
        self._observer = observer
        self._tracer = tracer

    def start(self) -> None:
        """Begin to connect, to load the watchers and to run them; returns at once."""
        self._connection.start()
        self.registry.start()
        self.peers.start()

    async def close(self) -> bool:
        """Drain every watcher and stop; False where a drain had to be cut short."""
        drained = await self.registry.close()
        await self.peers.close()
        await self._connection.close()
        await self._mongo.end_feeds()
        self._mongo.close()
        if self._tracer is not None:
            await self._tracer.close()
        return drained

    async def _circle(self) -> Circle | None:
        """Read what the instances share; None while this one is alone. Raises StoreUnavailable, StateOutOfReach."""
        return Circle(*await self._mongo.instances().secret()) if self.registry.share.others() else None

    async def render_metrics(self) -> tuple[bytes, str]:
        """What Prometheus reads, and its content type. Written in a thread: with many watchers it is a long text."""
        self.registry.observe_positions()
        self._mongo.observe_streams()
        return await asyncio.to_thread(self._observer.render)


def compose(settings: Settings) -> Service:
    """Make the service. Call it where the event loop runs. Raises Invalid for a MONGO_URI that is not one."""
    observer = PrometheusObserver(version=__version__)
    mongo = MongoDeployment(
        settings.mongo_uri.get_secret_value(),
        state_database=settings.state_db,
        observer=observer,
        batch_size=settings.batch_size,
        split=native.splitter(settings.codec),
        share=settings.shared_streams,
    )
    connection = NatsConnection(nats_options(settings))
    instance = settings.instance or f"{socket.gethostname()}-{secrets.token_hex(2)}"
    tracer, tracing, header_bytes = _tracing_of(settings, instance)
    dependencies = Dependencies(
        mongo=mongo,
        nats=JetStream(connection, header_bytes),
        tracing=tracing,
        codec=codec_of(settings),
        observer=observer,
        tuning=Tuning(losses=settings.standby_losses, silence_seconds=settings.standby_silence_seconds),
        snapshots=SnapshotLimits(settings.snapshots_at_once, settings.snapshot_max_lag_seconds),
    )
    registry = Registry(
        dependencies,
        mongo.watchers(),
        Rules(
            settings.state_db,
            settings.allowed,
            javascript=settings.allow_server_side_javascript,
            between_instances=subjects_of(settings.nats_prefix),
        ),
        from_file=settings.connector.watchers if settings.connector is not None else None,
        times=Times(
            drain=settings.drain_seconds,
            reconcile=settings.reconcile_seconds,
            min_headroom=settings.min_headroom_seconds,
        ),
        share=Share(
            mongo.instances(),
            instances.Member(
                instance,
                secrets.token_hex(8),
                weight=settings.weight,
                version=__version__,
            ),
        ),
    )
    return Service(settings, registry, mongo, connection, observer, tracer)


def _tracing_of(settings: Settings, instance: str) -> "tuple[Tracer | None, Tracing | None, int]":
    """What traces the watchers, and the bytes that it adds to each message. OpenTelemetry is imported here alone."""
    if not settings.traces:
        return None, None, 0
    from app.tracing.exporter import OtlpTracer
    from app.tracing.runs import TracedRuns
    from app.tracing.sink import HEADER_BYTES

    tracer = OtlpTracer(
        endpoint=settings.otel_exporter_otlp_endpoint,
        service=settings.otel_service_name,
        version=__version__,
        instance=instance,
    )
    mark = settings.tracing == "messages"
    log.info("tracing_started", messages=mark)
    return tracer, TracedRuns(tracer, mark=mark), HEADER_BYTES if mark else 0


def interface(service: Service, lifespan: "Lifespan | None" = None) -> "FastAPI":
    """Make the HTTP interface of a service: FastAPI's imports, half of the time of a start, happen here.

    `app.state.stop_following` ends the answers that would keep a server from stopping.
    """
    from app.api import create_api

    app = create_api(
        registry=service.registry,
        settings=service.settings,
        render_metrics=service.render_metrics,
        lifespan=lifespan,
        owners=service.registry.share,
        peers=service.peers,
    )
    app.state.stop_following = service.registry.streams.close
    return app


def create_app(settings: Settings) -> "FastAPI":
    """Make service and interface as one application that starts and stops the service. Raises as `compose`.

    `app.state.drained` is False after a stop that had to be cut short.
    """
    service = compose(settings)

    @asynccontextmanager
    async def lifespan(app: "FastAPI") -> AsyncIterator[None]:
        service.start()
        try:
            yield
        finally:
            app.state.drained = await service.close()

    app = interface(service, lifespan)
    app.state.drained = True
    return app


def codec_of(settings: Settings) -> Codec:
    """The encoder, native where that is wished and was built; the log says which."""
    transcode = native.transcoder(settings.codec)
    if transcode is not None:
        log.info("encoder", encoder="native")
    else:
        log.info("encoder", encoder="python", reason=native.absence() or "CHANGEWIRE_CODEC says so")
    pack, pack_rows = native.packer(settings.codec), native.row_packer(settings.codec)
    return Codec(encode, reduced, identify, names_of, transcode, pack, pack_rows)
