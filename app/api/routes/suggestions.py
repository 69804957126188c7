"""The call that suggests what a watcher may be made of: databases, collections and streams that exist."""

from typing import Annotated

from fastapi import APIRouter, Query

from app.api.answering import Answered, Call
from app.api.parameters import CHANGES, NOT_CACHED, CurrentRegistry
from app.api.problems import documented
from app.api.schemas.suggestions import SuggestionsAnswer, Wanted

router = APIRouter(tags=["watchers"], route_class=Call)


@router.get("/suggestions", dependencies=CHANGES, responses=documented(401, 403, 422))
async def get_suggestions(registry: CurrentRegistry, query: Annotated[Wanted, Query()]) -> Answered[SuggestionsAnswer]:
    """Suggest what exists already for a watcher: databases, the collections of one of them, and streams.

    It needs what a change needs: the names are not only those of watchers. A server that does not answer is no error;
    `why` says so."""
    return Answered(SuggestionsAnswer.of(await registry.suggestions.of(query.database)), headers=NOT_CACHED)
