"""What the change streams of one deployment share."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bson.timestamp import Timestamp

from app.mongodb.one_answer import OneAnswer
from app.mongodb.pool import PoolWatch

if TYPE_CHECKING:
    from motor.motor_asyncio import AsyncIOMotorClient


@dataclass(slots=True)
class Reach:
    """The ways to the deployment. `slow` names the namespaces whose reads outlast the usual socket timeout."""

    client: "AsyncIOMotorClient[Mapping[str, Any]]"
    patient: Callable[[], "AsyncIOMotorClient[Mapping[str, Any]]"]
    """The same deployment without a short socket timeout. A server that scans its oplog for the next event of a quiet
    collection answers nothing meanwhile, whatever maxTimeMS says. Given up early, it would start over each time."""
    oplog_first: Callable[[float], Awaitable[Timestamp | None]]
    """Takes the age in seconds that the answer may have."""
    state_database: str = ""
    """Where Changewire keeps its own state: no watcher of the deployment reads it."""
    slow: set[str] = field(default_factory=set)
    pool_watch: PoolWatch = field(default_factory=lambda: PoolWatch(None))
    reading: dict[object, bool] = field(default_factory=dict)
    """The sources whose change streams are open, and whether they are shared; for metrics."""
    hello: OneAnswer[Mapping[str, Any]] = field(init=False)
    """Asks a server what it is, and for its operationTime."""

    def __post_init__(self) -> None:
        self.hello = OneAnswer("hello", self._say_hello)

    async def _say_hello(self) -> Mapping[str, Any]:
        reply: Mapping[str, Any] = await self.client.admin.command("hello")
        return reply

    def opened(self, source: object, *, shared: bool) -> None:
        """Take note that this source has a change stream from now on."""
        self.reading[source] = shared
        self.pool_watch.look(len(self.reading))

    def client_for(self, namespace: str) -> "AsyncIOMotorClient[Mapping[str, Any]]":
        """Return the client that reads this namespace."""
        return self.patient() if namespace in self.slow else self.client
