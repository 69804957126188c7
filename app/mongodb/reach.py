"""What the change streams of one deployment share."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import structlog
from bson.timestamp import Timestamp

from app.mongodb.one_answer import OneAnswer
from app.mongodb.pool import PoolWatch

if TYPE_CHECKING:
    from motor.motor_asyncio import AsyncIOMotorClient

log = structlog.get_logger(__name__)

SERVER_SECONDS: Final = 5.0
"""What a server is changes with an upgrade, or a failover to one of another version."""
SETTLED_SECONDS: Final = 1.0
"""For how long the end of a deployment waits for what goes on aside."""


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

    _aside: set[asyncio.Task[None]] = field(init=False, default_factory=set)
    _server: tuple[float, Mapping[str, Any]] = field(init=False, default=(float("-inf"), {}))
    """What a server said of itself last, and when."""

    def __post_init__(self) -> None:
        self.hello = OneAnswer("hello", self._say_hello)

    async def _say_hello(self) -> Mapping[str, Any]:
        reply: Mapping[str, Any] = await self.client.admin.command("hello")
        self._server = time.monotonic(), reply
        return reply

    async def server(self) -> Mapping[str, Any]:
        """Return what a server is, as it said a moment ago or says now. Its operationTime may be as old."""
        at, said = self._server
        return said if time.monotonic() - at < SERVER_SECONDS else await self.hello.ask()

    def aside(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Do something that nobody has to wait for, such as closing a cursor, in a task of this name."""
        task = asyncio.create_task(work, name=name)
        self._aside.add(task)
        task.add_done_callback(self._done)

    async def settled(self) -> None:
        """Wait until nothing goes on aside, but not for a server that does not answer."""
        if self._aside:
            await asyncio.wait(self._aside, timeout=SETTLED_SECONDS)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._aside.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("aside_task_ended", task=task.get_name(), exc_info=error)

    def opened(self, source: object, *, shared: bool) -> None:
        """Take note that this source has a change stream from now on."""
        self.reading[source] = shared
        self.pool_watch.look(len(self.reading))

    def client_for(self, namespace: str) -> "AsyncIOMotorClient[Mapping[str, Any]]":
        """Return the client that reads this namespace."""
        return self.patient() if namespace in self.slow else self.client
