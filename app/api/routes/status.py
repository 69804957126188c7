"""The calls that ask how things are: of a watcher, of all, and of the service for its probes and Prometheus."""

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from app.api.answering import Answered, Call
from app.api.others import CurrentOthers
from app.api.parameters import NOT_CACHED, CurrentRegistry, Name, Silent
from app.api.problems import documented
from app.api.schemas.status import (
    HappeningAnswer,
    HealthAnswer,
    LagAnswer,
    ProbeAnswer,
    ServiceAnswer,
    StatusAnswer,
)
from app.domain.errors import Unavailable

router = APIRouter(route_class=Call)


def _down(model: Any, description: str) -> dict[int | str, dict[str, Any]]:
    return {503: {"model": model, "description": description}}


@router.get("/watchers/{name}/status", tags=["status"], responses=documented(404, 422, 503))
async def get_watcher_status(
    registry: CurrentRegistry, others: CurrentOthers, silent: Silent, name: Name
) -> Answered[StatusAnswer]:
    """Get a watcher's status: state and reason, last error, events, rates."""
    view = await registry.watcher(name)
    answer = StatusAnswer.of(view.status) if silent is None else others.unheard(view, silent).status
    return Answered(answer, headers=NOT_CACHED)


@router.get(
    "/watchers/{name}/health",
    tags=["status"],
    responses={**documented(404, 422), **_down(HealthAnswer, "The watcher is not healthy.")},
)
async def get_watcher_health(registry: CurrentRegistry, silent: Silent, name: Name) -> Answered[HealthAnswer]:
    """Get a watcher's health: 200 when it runs, is paused or stands by for another instance; otherwise 503."""
    try:
        view = await registry.watcher(name)
        answer = HealthAnswer.of(view.status) if silent is None else HealthAnswer.unknown(silent.reason)
    except Unavailable as unavailable:
        answer = HealthAnswer.unknown(str(unavailable))
    return Answered(answer, 200 if answer.status == "UP" else 503, NOT_CACHED)


@router.get("/watchers/{name}/lag", tags=["status"], responses=documented(404, 422, 503))
async def get_watcher_lag(
    registry: CurrentRegistry, others: CurrentOthers, silent: Silent, name: Name
) -> Answered[LagAnswer]:
    """Get how far a watcher is behind, and how much oplog is left before its position."""
    lag = await registry.lag(name)
    return Answered(LagAnswer.of(lag) if silent is None else others.unheard_lag(lag), headers=NOT_CACHED)


@router.get("/lag", tags=["status"], responses=documented(503))
async def get_lag(request: Request, registry: CurrentRegistry, others: CurrentOthers) -> Answered[dict[str, LagAnswer]]:
    """Get how far each watcher of all instances is behind, by name."""
    return Answered(await others.lags(registry, request.scope), headers=NOT_CACHED)


@router.get(
    "/healthz",
    tags=["probes"],
    responses=_down(ServiceAnswer, "Something is down; its `reason` says why."),
)
async def healthz(registry: CurrentRegistry) -> Answered[ServiceAnswer]:
    """Whether MongoDB, NATS and the watchers are up. The form is that of mongodb-nats-connector."""
    health = await registry.health()
    return Answered(ServiceAnswer.of(health), 200 if health.up else 503, NOT_CACHED)


@router.get("/livez", tags=["probes"])
async def livez() -> Answered[ProbeAnswer]:
    """Whether the process answers at all."""
    return Answered(ProbeAnswer.of(None), headers=NOT_CACHED)


@router.get(
    "/readyz",
    tags=["probes"],
    responses=_down(ProbeAnswer, "Not ready; `reason` says what it waits for."),
)
async def readyz(registry: CurrentRegistry) -> Answered[ProbeAnswer]:
    """Whether the watchers are loaded and both servers were reached."""
    reason = registry.ready()
    return Answered(ProbeAnswer.of(reason), 200 if reason is None else 503, NOT_CACHED)


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


@router.get(
    "/watchers/{name}/history",
    tags=["status"],
    responses=documented(404, 422, 503),
)
async def get_watcher_history(registry: CurrentRegistry, silent: Silent, name: Name) -> Answered[list[HappeningAnswer]]:
    """Get the last 50 states and errors of a watcher in the instance that runs it, since that started, oldest first."""
    if silent is not None:
        raise Unavailable(f"the instance {silent.instance} has the history of {name}, and {silent.reason}; try again")
    return Answered([HappeningAnswer.of(each) for each in await registry.history(name)], headers=NOT_CACHED)
