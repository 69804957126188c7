"""Which patterns of a scope fit no collection yet: accepted, but perhaps a slip of the pen, so that its status says so.

A look lists the names of the collections. It is taken when the stream is opened, and again only while some pattern fits
nothing: after events have come, or a minute.
"""

from typing import Final

from app.domain.patterns import Pattern, is_name, matches
from app.domain.watcher import Source
from app.mongodb.errors import where_allowed
from app.mongodb.reach import Reach

SOON_SECONDS: Final = 3.0
"""Between two looks at least."""
LATER_SECONDS: Final = 60.0
"""Until the next look where nothing has come."""
LOOK_SECONDS: Final = 2.0
"""How long a look may take."""


class Unmatched:
    """Of one source. Times are the event loop's clock, in seconds."""

    def __init__(self, source: Source, reach: Reach) -> None:
        self._source = source
        self._reach = reach
        self._left = dict(zip(source.include, source.choice.include, strict=False)) if source.is_scope else {}
        self._looked: float | None = None
        self._came = False
        self._known = False
        """Whether a look has succeeded."""

    @property
    def note(self) -> str | None:
        """What the status says; None where every pattern fits something, or nothing is known yet."""
        if not self._left or not self._known:
            return None
        return f"source.include: no collection fits {', '.join(self._left)} yet"

    def came(self) -> None:
        """Events have come: a collection may be new."""
        self._came = True

    def is_due(self, now: float) -> bool:
        if not self._left:
            return False
        return self._looked is None or now >= self._looked + (SOON_SECONDS if self._came else LATER_SECONDS)

    async def look(self, now: float) -> None:
        """List the collections. Where the account may not, nothing is said. Raises SourceUnavailable."""
        self._looked = now
        self._came, seen, left = False, dict[str, list[str]](), dict[str, Pattern]()
        with where_allowed("listing collections", seconds=LOOK_SECONDS):
            for database in await self._databases():
                seen[database] = await self._reach.client[database].list_collection_names()
            left = {entry: pattern for entry, pattern in self._left.items() if not _fits_one(pattern, seen)}
        self._left, self._known = left, True

    async def _databases(self) -> list[str]:
        """Those in which a pattern that is left may fit something."""
        parts = {pattern.database for pattern in self._left.values()}
        if all(map(is_name, parts)):
            return sorted(parts)
        names = await self._reach.client.list_database_names()
        return [name for name in names if any(matches(part, name) for part in parts)]


def _fits_one(pattern: Pattern, seen: dict[str, list[str]]) -> bool:
    return any(pattern.has(database, name) for database, names in seen.items() for name in names)
