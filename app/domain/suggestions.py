"""What exists already, to choose from where a watcher is described: names of databases, collections and streams.

Values only. What is never suggested is what a watcher would be refused for.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from app.domain.buckets import behind_problem
from app.domain.checkpoint_place import TOKENS_DATABASE
from app.domain.dead_letters import SUFFIX
from app.domain.names import SYSTEM_COLLECTIONS, SYSTEM_DATABASES
from app.domain.namespaces import Namespaces

MOST: Final = 500
"""Names of one kind. A person who looks for one of more goes on typing."""


@dataclass(frozen=True, slots=True)
class Suggested:
    """Names in order. `more`: there are others beside these. `why`: why there are none, or not all."""

    names: tuple[str, ...] = ()
    more: bool = False
    why: str | None = None


@dataclass(frozen=True, slots=True)
class Suggestions:
    databases: Suggested
    collections: Suggested
    streams: Suggested


def suggested(names: Iterable[str], *, more: bool = False) -> Suggested:
    found = sorted(set(names))
    return Suggested(tuple(found[:MOST]), more or len(found) > MOST)


def may_be_watched(database: str, state_database: str, allowed: Namespaces | None) -> bool:
    """Whether some collection of a database may be the source of a watcher."""
    never = (*SYSTEM_DATABASES, TOKENS_DATABASE, state_database.lower())
    return database.lower() not in never and (allowed is None or allowed.has(database))


def is_collection(database: str, name: str, allowed: Namespaces | None) -> bool:
    """Whether a collection of such a database may be the source of a watcher."""
    if name.startswith(SYSTEM_COLLECTIONS) or "$" in name:
        return False
    return allowed is None or allowed.has(database, name)


def is_stream(name: str) -> bool:
    """Whether a stream may be the sink of a watcher, as far as its name tells: no bucket, and no dead letters."""
    return behind_problem(name) is None and not name.endswith(SUFFIX)
