"""How MongoDB is connected to: the client, its time limits, and what its commands tell the observer.

Import motor through this module: its executor takes its size from the environment when it is first imported, and every
watcher that waits for events holds one of its threads.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import parse_qsl

from app.mongodb import pool  # before motor: see there

# isort: split
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo import monitoring
from pymongo.errors import ConfigurationError

from app.config.addresses import mongo_file_problem, mongo_uri_problem
from app.domain.errors import FieldProblem, Invalid
from app.mongodb.codes import NAMESPACE_EXISTS
from app.mongodb.pinning import prefer_pinned
from app.ports import Observer

OPTIONS: Final[Mapping[str, Any]] = {
    "appname": "changewire",
    "maxPoolSize": pool.MOST,
    "connectTimeoutMS": 2_000,
    "serverSelectionTimeoutMS": 2_000,
    # A frozen server is noticed by its heartbeat, after three seconds, and then every read on it is broken off. This
    # is for a connection that dies alone; it has to leave room for a server that scans its oplog before it answers.
    "heartbeatFrequencyMS": 1_000,
    "socketTimeoutMS": 20_000,
    "retryReads": True,
    "retryWrites": True,
}
"""The URI's own options win, but for a pool that is too small (`pool.py`)."""
Listener = monitoring.CommandListener | monitoring.ServerHeartbeatListener
PATIENT: Final[Mapping[str, Any]] = {"socketTimeoutMS": 3_600_000}
"""For reads that outlast the usual socket timeout; wins over the URI as well."""
_QUIET: Final = frozenset({"hello", "ismaster", "isMaster", "ping"})


def connect(
    uri: str, listeners: Sequence[Listener] = (), insist: Mapping[str, Any] | None = None
) -> AsyncIOMotorClient[Mapping[str, Any]]:
    """Return a client, which connects when it is first used. `insist` are options that win over the URI's.

    Raises Invalid on MONGO_URI for a URI that is not one."""
    named = {name.lower() for name, _ in parse_qsl(uri.partition("?")[2], keep_blank_values=True)}
    if (pool.asked_for(uri) or 0) < pool.MOST:
        named.discard("maxpoolsize")
    options = {name: value for name, value in OPTIONS.items() if name.lower() not in named} | dict(insist or {})
    try:
        return AsyncIOMotorClient(uri, event_listeners=list(listeners), server_selector=prefer_pinned, **options)
    except (ConfigurationError, ValueError, TypeError, OSError) as error:  # OSError: of a file that it names
        problem = mongo_uri_problem(uri) or mongo_file_problem(uri) or "is not a MongoDB connection string"
        problem += "; write for example mongodb://user:password@host:27017/?replicaSet=rs0"
        raise Invalid(problems=(FieldProblem("MONGO_URI", problem),)) from error


class CommandListener(monitoring.CommandListener):
    """Tells the observer of every command; runs on motor's threads. What a probe sends all the time is left out."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        if event.command_name not in _QUIET:
            self._observer.command_started(event.database_name, event.command_name)

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        if event.command_name not in _QUIET:
            self._observer.command_succeeded(event.database_name, event.command_name, event.duration_micros / 1e6)

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        if event.command_name in _QUIET:
            return
        seconds = event.duration_micros / 1e6
        if event.command_name == "create" and event.failure.get("code") == NAMESPACE_EXISTS:
            # The collection exists, and more was not wanted.
            self._observer.command_succeeded(event.database_name, event.command_name, seconds)
        else:
            self._observer.command_failed(event.database_name, event.command_name, seconds)
