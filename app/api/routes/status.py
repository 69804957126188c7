"""The calls that ask how things are: of a watcher, of all, and of the service for its probes and Prometheus."""

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from app.api.problems import documented
from app.api.routes.watchers import Name, Watchers
from app.api.schemas import answers
from app.domain.errors import Unavailable

router = APIRouter()

NOT_CACHED = {"Cache-Control": "no-store"}


def _down(model: Any, description: str) -> dict[int | str, dict[str, Any]]:
    return {503: {"model": model, "description": description}}


@router.get(
    "/watchers/{name}/status", tags=["status"], response_model=answers.StatusAnswer, responses=documented(404, 422, 503)
)
async def get_watcher_status(registry: Watchers, name: Name) -> Response:
    """Get a watcher's status: state and reason, last error, events, rates."""
    view = await registry.watcher(name)
    return JSONResponse(answers.status(view.status), headers=NOT_CACHED)


@router.get(
    "/watchers/{name}/health",
    tags=["status"],
    response_model=answers.HealthAnswer,
    responses={**documented(404, 422), **_down(answers.HealthAnswer, "The watcher is not healthy.")},
)
async def get_watcher_health(registry: Watchers, name: Name) -> Response:
    """Get a watcher's health: 200 when it runs, is paused or stands by for another instance; otherwise 503."""
    try:
        answer = answers.watcher_health((await registry.watcher(name)).status)
    except Unavailable as unavailable:
        answer = {"status": "DOWN", "reason": answers.said(str(unavailable))}
    return JSONResponse(answer, 200 if answer["status"] == "UP" else 503, NOT_CACHED)


@router.get(
    "/watchers/{name}/lag", tags=["status"], response_model=answers.LagAnswer, responses=documented(404, 422, 503)
)
async def get_watcher_lag(registry: Watchers, name: Name) -> Response:
    """Get how far a watcher is behind, and how much oplog is left before its position."""
    return JSONResponse(answers.lag(await registry.lag(name)), headers=NOT_CACHED)


@router.get("/lag", tags=["status"], response_model=dict[str, answers.LagAnswer], responses=documented(503))
async def get_lag(registry: Watchers) -> Response:
    """Get how far each watcher is behind, by name."""
    lags = await registry.lags()
    return JSONResponse({name: answers.lag(value) for name, value in lags.items()}, headers=NOT_CACHED)


@router.get(
    "/healthz",
    tags=["probes"],
    response_model=answers.ServiceAnswer,
    response_model_exclude_none=True,
    responses=_down(answers.ServiceAnswer, "Something is down; its `reason` says why."),
)
async def healthz(registry: Watchers) -> Response:
    """Whether MongoDB, NATS and the watchers are up. The form is that of mongodb-nats-connector."""
    health = await registry.health()
    return JSONResponse(answers.service(health), 200 if health.up else 503, NOT_CACHED)


@router.get("/livez", tags=["probes"], response_model=answers.ProbeAnswer, response_model_exclude_none=True)
async def livez() -> Response:
    """Whether the process answers at all."""
    return JSONResponse({"status": "UP"}, headers=NOT_CACHED)


@router.get(
    "/readyz",
    tags=["probes"],
    response_model=answers.ProbeAnswer,
    response_model_exclude_none=True,
    responses=_down(answers.ProbeAnswer, "Not ready; `reason` says what it waits for."),
)
async def readyz(registry: Watchers) -> Response:
    """Whether the watchers are loaded and both servers were reached."""
    reason = registry.ready()
    if reason is None:
        return JSONResponse({"status": "UP"}, headers=NOT_CACHED)
    return JSONResponse({"status": "DOWN", "reason": answers.said(reason)}, 503, NOT_CACHED)


@router.get(
    "/metrics",
    tags=["probes"],
    response_class=Response,
    responses={
        200: {"description": "Prometheus text format.", "content": {"text/plain": {"schema": {"type": "string"}}}}
    },
)
async def metrics(request: Request) -> Response:
    """All metrics, for Prometheus."""
    render: Callable[[], Awaitable[tuple[bytes, str]]] = request.app.state.render_metrics
    content, content_type = await render()
    return Response(content, headers={**NOT_CACHED, "Content-Type": content_type})
