"""The HTTP server as `serve` and `demo` run it: uvicorn with our sockets, our signals and our logging.

What uvicorn says of its own life is not logged (`config/logging.py`): `listening` says that HTTP is served.

The application is made in `app/main.py`; `serve.py` decides the exit code.
"""

import contextlib
import socket
import ssl
from collections.abc import Callable, Iterator

import structlog
import uvicorn
from fastapi import FastAPI

from app.cli import MISUSE, CommandError
from app.cli.http_protocol import BoundedHead
from app.config.settings import Settings, variable

log = structlog.get_logger(__name__)

IDLE_SECONDS = 75
"""How long a connection may rest. Clients and load balancers keep theirs up to a minute: one that is closed here first
may be closed just as the next request is on its way."""
CONNECTION_SECONDS = 3
"""How long requests under way may take to finish before the drain begins."""


class Server(uvicorn.Server):
    """A uvicorn server that leaves signals to its caller and stops when `should_exit` is set.

    `on_shutdown` is called first of all then: it ends the answers that have no end of their own."""

    def __init__(self, config: uvicorn.Config, on_shutdown: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_shutdown = on_shutdown

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to serve, and log it."""
        await super().startup(sockets)
        log.info("listening", addresses=[each.getsockname()[:2] for each in sockets or ()])

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._on_shutdown()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """uvicorn would end the process by the signal again, with an exit code of its own."""
        yield

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until `should_exit`. Raises CommandError where the service does not start."""
        try:
            await super().serve(sockets)
        except SystemExit as error:  # uvicorn's way, with an exit code of its own
            raise CommandError("the service did not start; see the log above") from error
        except ssl.SSLError as error:
            names = f"{variable('tls_cert')} and {variable('tls_key')}"
            raise CommandError(f"{names} cannot be used: {error.reason or error}", MISUSE) from error


def server(app: FastAPI, settings: Settings) -> Server:
    """Make the server of an application; `serve(sockets=…)` runs it."""
    return Server(
        uvicorn.Config(
            app,
            http=BoundedHead,
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=settings.log_level == "debug",
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=IDLE_SECONDS,
            timeout_graceful_shutdown=CONNECTION_SECONDS,
            ssl_certfile=settings.tls_cert,
            ssl_keyfile=settings.tls_key,
        ),
        getattr(app.state, "stop_following", lambda: None),
    )
