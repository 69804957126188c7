"""The HTTP interface: REST over the registry, probes, metrics and their documentation.

`create_api` makes the FastAPI application, `openapi_document` its description. A call checks its input, asks the
registry (`control/registry.py`), and answers with a model. A request passes, from the outside in:

    middleware/     security headers, audit log, last resort; head_requests.py; auth.py; limits
    forwarding.py   sends it to the instance that runs the watcher; others.py puts lists of all instances together
    routes/         the calls, one module for each group
    schemas/        the shapes of requests and answers; answering.py sends an answer, problems.py says what went wrong
"""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute

from app import __version__
from app.api import documentation, error_handlers, event_stream, problems
from app.api.auth import AS_CHANGES, Authority, is_open
from app.api.forwarding import Forwarding, answerer
from app.api.head_requests import HeadAsGet
from app.api.middleware.audit_log import AuditLog
from app.api.middleware.last_resort import LastResort
from app.api.middleware.limits import RequestLimits
from app.api.middleware.security_headers import SecurityHeaders
from app.api.others import Alone, Others
from app.api.routes import dead_letters, instances, page, positions, snapshots, status, streams, suggestions, watchers
from app.config.settings import Settings
from app.control.registry import Registry
from app.ports.peers import Owners, Peers

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]

_TAGS = [
    {"name": "watchers", "description": "Add, change and remove watchers, pause and resume them."},
    {"name": "positions", "description": "Where a watcher is in the change stream, and how to move it."},
    {"name": "dead letters", "description": "Changes that could not be published: list, replay, delete."},
    {"name": "streams", "description": "A watcher's stream, and its messages as they arrive."},
    {"name": "status", "description": "The status of watchers, and how far they are behind."},
    {"name": "instances", "description": "The instances that share the watchers, and what each of them runs."},
    {"name": "probes", "description": "For load balancers, Kubernetes and Prometheus."},
]


def create_api(
    *,
    registry: Registry,
    settings: Settings,
    render_metrics: Callable[[], Awaitable[tuple[bytes, str]]],
    lifespan: Lifespan | None = None,
    owners: Owners | None = None,
    peers: Peers | None = None,
) -> FastAPI:
    """Make the application. `render_metrics` gives the body and content type of /metrics.

    `owners` tells which watchers other instances run, `peers` is the way to them; None where there are none."""
    app = _application(lifespan)
    owners = owners or Alone()
    others = Others(owners, peers)
    app.state.registry = registry
    app.state.render_metrics = render_metrics
    app.state.others = others
    # The last added is the outermost.
    app.add_middleware(Forwarding, owners=owners, others=others)
    app.add_middleware(RequestLimits)
    app.add_middleware(Authority, settings=settings)
    app.add_middleware(HeadAsGet)
    app.add_middleware(LastResort)
    app.add_middleware(AuditLog)
    app.add_middleware(SecurityHeaders)
    if peers is not None:
        peers.serve(answerer(app))
    return app


def openapi_document() -> dict[str, Any]:
    """The OpenAPI document, which needs neither servers nor settings."""
    return _application(None).openapi()


def _application(lifespan: Lifespan | None) -> FastAPI:
    app = FastAPI(
        title="Changewire",
        summary="Publishes MongoDB change streams to NATS JetStream: once, in order, and fast.",
        description="Errors are `application/problem+json` (RFC 9457).",
        version=__version__,
        openapi_tags=_TAGS,
        lifespan=lifespan,
        generate_unique_id_function=_operation_id,
        separate_input_output_schemas=False,
        redirect_slashes=False,
        openapi_url=None,  # both are in `documentation`
        docs_url=None,
        redoc_url=None,
    )
    app.include_router(watchers.router)
    app.include_router(positions.router)
    app.include_router(snapshots.router)
    app.include_router(dead_letters.router)
    app.include_router(status.router)
    app.include_router(streams.router)
    app.include_router(instances.router)
    app.include_router(suggestions.router)
    app.include_router(page.router)
    error_handlers.install(app)

    _extend_document(app)
    documentation.install(app)
    return app


def _extend_document(app: FastAPI) -> None:
    """Add to the OpenAPI document what FastAPI does not see: problems, events, and which reads may need a token."""
    plain = app.openapi

    def extended() -> dict[str, Any]:
        document = plain()
        schemas: dict[str, Any] = document["components"]["schemas"]
        if "Problem" not in schemas:
            _close_reads(document)
            schemas.update(problems.SCHEMAS | event_stream.schemas())
            document["components"]["schemas"] = dict(sorted(schemas.items()))
        return document

    app.openapi = extended  # type: ignore[method-assign]  # FastAPI's documented way to extend the document


def _close_reads(document: dict[str, Any]) -> None:
    """Say of each read that a token may be asked for."""
    for path, methods in document["paths"].items():
        read = methods.get("get")
        if read is not None and not is_open(path) and path not in AS_CHANGES:
            read["security"] = [{}, {"HTTPBearer": []}]
            refused = {str(status): said for status, said in problems.documented(401, 403).items()}
            read["responses"] = dict(sorted((refused | read["responses"]).items()))


def _operation_id(route: APIRoute) -> str:
    first, *rest = route.name.split("_")
    return first + "".join(word.capitalize() for word in rest)
