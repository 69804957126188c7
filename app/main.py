"""How all of it is put together: the one place that knows adapters, pipeline and HTTP at once.

`create_app` makes the service from its settings; nothing is connected before the application starts, and servers that
are absent then are waited for. Not its business: the process around it (`cli/serve.py`).
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
from fastapi import FastAPI

from app import __version__, native
from app.adapters.jetstream import JetStream
from app.adapters.metrics import PrometheusObserver
from app.adapters.mongo_client import MongoDeployment
from app.adapters.nats_client import NatsOptions
from app.adapters.nats_connection import NatsConnection
from app.api import create_api
from app.codec import encode, identify, reduced
from app.encoder import Codec
from app.registry import Registry
from app.settings import Settings
from app.world import Tuning, World

log = structlog.get_logger(__name__)


def create_app(settings: Settings) -> FastAPI:
    """Make the service. Call it where the event loop runs. Raises Invalid for a MONGO_URI that is not one.

    `app.state.drained` is False after a stop that had to be cut short.
    """
    observer = PrometheusObserver(version=__version__)
    mongo = MongoDeployment(
        settings.mongo_uri.get_secret_value(),
        state_database=settings.state_db,
        observer=observer,
        batch_size=settings.batch_size,
    )
    connection = NatsConnection(_nats_options(settings))
    world = World(
        mongo=mongo,
        nats=JetStream(connection),
        codec=codec_of(settings),
        observer=observer,
        tuning=Tuning(losses=settings.standby_losses, silence_seconds=settings.standby_silence_seconds),
    )
    registry = Registry(
        world,
        mongo.watchers(),
        state_database=settings.state_db,
        allowed=settings.allowed,
        from_file=settings.connector.watchers if settings.connector is not None else None,
        drain_seconds=settings.drain_seconds,
        reconcile_seconds=settings.reconcile_seconds,
        min_headroom_seconds=settings.min_headroom_seconds,
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        connection.start()
        registry.start()
        try:
            yield
        finally:
            app.state.drained = await registry.close()
            await connection.close()
            mongo.close()

    def render_metrics() -> tuple[bytes, str]:
        registry.observe_positions()
        return observer.render()

    app = create_api(registry=registry, settings=settings, render_metrics=render_metrics, lifespan=lifespan)
    app.state.drained = True
    return app


def codec_of(settings: Settings) -> Codec:
    """The encoder, native where that is wished and was built; the log says which."""
    transcode = native.transcoder(settings.codec)
    if transcode is not None:
        log.info("encoder", encoder="native")
    else:
        log.info("encoder", encoder="python", reason=native.absence() or "CHANGEWIRE_CODEC says so")
    return Codec(encode, reduced, identify, transcode)


def _nats_options(settings: Settings) -> NatsOptions:
    def path(value: object) -> str | None:
        return None if value is None else str(value)

    password, token = settings.nats_password, settings.nats_token
    return NatsOptions(
        urls=tuple(settings.nats_servers),
        user=settings.nats_user,
        password=None if password is None else password.get_secret_value(),
        token=None if token is None else token.get_secret_value(),
        creds_file=path(settings.nats_creds),
        nkey_seed_file=path(settings.nats_nkey_seed_file),
        tls_ca=path(settings.nats_tls_ca),
        tls_cert=path(settings.nats_tls_cert),
        tls_key=path(settings.nats_tls_key),
    )
