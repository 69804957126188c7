"""The calls about the instances that share the watchers: who they are, and draining one by hand."""

from typing import Annotated

from fastapi import APIRouter, Query

from app.api.answering import Answered, Call
from app.api.parameters import CHANGES, NOT_CACHED, CurrentRegistry
from app.api.problems import documented
from app.api.schemas.instances import Force, InstanceAnswer

router = APIRouter(tags=["instances"], route_class=Call)


@router.get("/instances", responses=documented(503))
async def list_instances(registry: CurrentRegistry) -> Answered[list[InstanceAnswer]]:
    """List the instances that share the watchers, by name; those that are gone too, for an hour."""
    return Answered([InstanceAnswer.of(view) for view in await registry.instances()], headers=NOT_CACHED)


@router.put(
    "/instances/{instance}/drain",
    status_code=202,
    dependencies=CHANGES,
    responses=documented(401, 403, 404, 409, 422, 503),
)
async def drain_instance(
    registry: CurrentRegistry, instance: str, query: Annotated[Force, Query()]
) -> Answered[InstanceAnswer]:
    """Have an instance hand its watchers over to the others, and take no new ones. It goes on answering requests."""
    view = await registry.drain_instance(instance, on=True, force=query.force)
    return Answered(InstanceAnswer.of(view), 202, NOT_CACHED)


@router.delete(
    "/instances/{instance}/drain",
    status_code=202,
    dependencies=CHANGES,
    responses=documented(401, 403, 404, 422, 503),
)
async def undrain_instance(registry: CurrentRegistry, instance: str) -> Answered[InstanceAnswer]:
    """Let an instance take watchers again."""
    return Answered(InstanceAnswer.of(await registry.drain_instance(instance, on=False)), 202, NOT_CACHED)
