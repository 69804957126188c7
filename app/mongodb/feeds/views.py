"""Which collections of a database are views, by one question for everybody who asks at the same moment.

A view has no change stream: a stream of its own is refused. A database's stream goes on without it and says nothing. So
a watcher whose collection was dropped and created again as a view gets no event from a feed and no error either, and a
feed has to ask. Time-series collections are views as well.
"""

from typing import NamedTuple

import structlog

from app.domain.errors import ChangewireError
from app.domain.tokens import ClusterTime
from app.mongodb.described import names_and_time_in, views_described
from app.mongodb.errors import translated
from app.mongodb.one_answer import OneAnswer
from app.mongodb.probe import PROBE_SECONDS
from app.mongodb.reach import Reach

log = structlog.get_logger(__name__)


class Seen(NamedTuple):
    """What the server said."""

    names: frozenset[str]
    """The collections that are views."""
    at: ClusterTime
    """What made them views is not later."""


NONE = Seen(frozenset(), ClusterTime(0, 0))


class Views:
    """Asks about one database. Make it where the event loop runs."""

    def __init__(self, reach: Reach, database: str) -> None:
        self._reach = reach
        self._database = database
        self._said = ""
        """Why nothing could be said the last time; a new reason is logged."""
        self._answer = OneAnswer(f"views:{database}", self._ask)

    async def seen(self) -> Seen:
        """Return what the server says from now on. Where it says nothing, or may not be asked, nothing is a view: those
        who are wrong are found by a later question."""
        return await self._answer.ask()

    async def _ask(self) -> Seen:
        try:
            with translated(f"asking which collections of {self._database} are views", seconds=PROBE_SECONDS):
                return Seen(*names_and_time_in(await self._reach.client[self._database].command(views_described())))
        except ChangewireError as error:
            if str(error) != self._said:
                log.info("views_not_known", database=self._database, reason=str(error))
            self._said = str(error)
            return NONE
