"""What the servers in MONGO_URI say that they are, as the driver's heartbeats hear it.

The driver takes no notice of a server that is not what MONGO_URI asks for, and then says that there is none. This
module remembers what such a server is, so that a person is told what to change.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pymongo import monitoring


@dataclass(frozen=True, slots=True)
class Misfit:
    """A server that is not what MONGO_URI asks for: what it is, and what to do about it."""

    found: str
    advice: str

    def __str__(self) -> str:
        return f"{self.found}: {self.advice}"


class Answers(monitoring.ServerHeartbeatListener):
    """The last answer of each server, by its address. Runs on the driver's threads."""

    def __init__(self) -> None:
        self._last: dict[str, Mapping[str, Any]] = {}

    def started(self, event: monitoring.ServerHeartbeatStartedEvent) -> None:
        pass

    def succeeded(self, event: monitoring.ServerHeartbeatSucceededEvent) -> None:
        host, port = event.connection_id
        self._last[f"{host}:{port}"] = event.reply.document

    def failed(self, event: monitoring.ServerHeartbeatFailedEvent) -> None:
        host, port = event.connection_id
        self._last.pop(f"{host}:{port}", None)

    def misfit(self, wanted: str | None) -> Misfit | None:
        """Return a server that cannot be used as the replica set `wanted` (None: any), or None where all can."""
        found = (_misfit(address, hello, wanted) for address, hello in dict(self._last).items())
        return next((each for each in found if each is not None), None)


def _misfit(address: str, hello: Mapping[str, Any], wanted: str | None) -> Misfit | None:
    asked = f" (MONGO_URI asks for the replica set {wanted})" if wanted else ""
    name = wanted or "rs0"
    if hello.get("isreplicaset"):
        return Misfit(
            f"{address} was started with --replSet, and its replica set is not initiated, or not known to it yet",
            "run rs.initiate() on it, once; a single node does",
        )
    if hello.get("msg") == "isdbgrid":
        return Misfit(f"{address} is a mongos{asked}", "leave replicaSet out of MONGO_URI") if wanted else None
    if "setName" not in hello:
        return Misfit(
            f"{address} is a standalone server, and change streams need a replica set{asked}",
            f"start it with --replSet {name} and run rs.initiate(), once; a single node does",
        )
    if wanted and hello["setName"] != wanted:
        return Misfit(
            f"{address} is a member of the replica set {hello['setName']}{asked}",
            f"write replicaSet={hello['setName']} in MONGO_URI, or name the hosts of {wanted}",
        )
    return None
