"""What the calls share: the registry, the watcher's name out of the path, and the mark of a call that changes."""

from typing import Annotated, NamedTuple

from fastapi import Depends, Request, Security
from fastapi.security import HTTPBearer

from app.control.registry import Registry
from app.domain.errors import NotFound
from app.domain.names import name_problem

# For the documentation and its Authorize button; `auth.Authority` has decided before a call gets here.
_bearer = HTTPBearer(auto_error=False, description="An API token, if any are configured.")
CHANGES = [Security(_bearer)]

SILENCE = "changewire.silence"
"""In the scope of a read that is answered from what is known here: the `Silence` of the instance that would know."""
NOT_CACHED = {"Cache-Control": "no-store"}


class Silence(NamedTuple):
    """Another instance runs the watcher, and did not answer."""

    instance: str
    reason: str


async def _registry(request: Request) -> Registry:
    registry: Registry = request.app.state.registry
    return registry


async def _possible_name(name: str) -> str:
    """The name out of the path. One that no watcher can have is not found, and the answer says why."""
    problem = name_problem(name)
    if problem is not None:
        raise NotFound(f"there is no watcher with this name: a name {problem}")
    return name


async def _silence(request: Request) -> Silence | None:
    silence: Silence | None = request.scope.get(SILENCE)
    return silence


CurrentRegistry = Annotated[Registry, Depends(_registry)]
Name = Annotated[str, Depends(_possible_name)]
Silent = Annotated[Silence | None, Depends(_silence)]
"""That the instance that runs the watcher did not answer; None where this one runs it, or nobody does."""
