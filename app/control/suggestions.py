"""What exists already on both servers, to choose from in the form of a watcher.

Asked of the servers each time, for a person who types: bounded in number and in time, and never an error. Where a
server does not answer, the list says why it is empty.
"""

import asyncio
from collections.abc import Awaitable, Callable

from app.control.admission import Rules
from app.control.server_probe import ServerProbe
from app.domain.errors import ChangewireError
from app.domain.names import database_problem
from app.domain.status import Component
from app.domain.suggestions import MOST, Suggested, Suggestions, is_collection, is_stream, may_be_watched, suggested
from app.pipeline.dependencies import Dependencies


class SuggestionService:
    """Suggests what a watcher may be made of."""

    def __init__(self, dependencies: Dependencies, rules: Rules, server_probe: ServerProbe) -> None:
        self._dependencies = dependencies
        self._rules = rules
        self._server_probe = server_probe

    async def of(self, database: str | None) -> Suggestions:
        """Return what exists; collections are those of `database`, none without one."""
        return Suggestions(
            *await asyncio.gather(
                _asked(self._databases, self._server_probe.mongo),
                _asked(lambda: self._collections(database or ""), self._server_probe.mongo),
                _asked(self._streams, self._server_probe.nats),
            )
        )

    async def _databases(self) -> Suggested:
        names = await self._dependencies.mongo.database_names()
        return suggested(each for each in names if self._may_be_watched(each))

    async def _collections(self, database: str) -> Suggested:
        if not database:
            return Suggested(why="no database is named")
        problem = database_problem(database)
        if problem is not None:
            return Suggested(why=f"the database {problem}")
        if not self._may_be_watched(database):
            return Suggested(why=f"{database} may not be watched")
        names, more = await self._dependencies.mongo.collection_names(database, MOST)
        return suggested((each for each in names if is_collection(database, each, self._rules.allowed)), more=more)

    async def _streams(self) -> Suggested:
        names, more = await self._dependencies.nats.stream_names()
        return suggested(filter(is_stream, names), more=more)

    def _may_be_watched(self, database: str) -> bool:
        return may_be_watched(database, self._rules.state_database, self._rules.allowed)


async def _asked(question: Callable[[], Awaitable[Suggested]], server: Component) -> Suggested:
    """Ask, unless the server is known not to answer."""
    if not server.up:
        return Suggested(why=server.reason)
    try:
        return await question()
    except ChangewireError as error:
        return Suggested(why=str(error))
