"""Whether MongoDB and NATS answer, asked every two seconds by one task, so that probes never wait for a server.

How the watchers do is a question for `health.py`.
"""

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable

import structlog

from app.domain.errors import ChangewireError, TransientError
from app.domain.lag import Oplog
from app.domain.outage import Outage
from app.domain.status import Component
from app.pipeline.dependencies import Dependencies
from app.pipeline.quiet_pace import QuietPace
from app.ports import Mongo, Nats

log = structlog.get_logger(__name__)

INTERVAL_SECONDS = 2.0
ALL_GENERATIONS_SECONDS = 30.0
"""How often all objects are looked through for cycles in an outage."""
ANSWER_SECONDS = 3.0
"""A server that takes longer than this to answer a ping counts as down."""
SAY_SECONDS = 30.0
"""The least time between two reasons of one server's that are logged while it is down."""
NOTICED_ATTEMPTS = 6
"""With the backoff of `domain/backoff.py` so many take six seconds, in which an outage is noticed."""
OPLOG_SECONDS = 10.0
"""The time between two looks at the oplog; one that may turn over soon is looked at with every ping."""


class ServerProbe:
    """The last known state of both servers. `run` keeps it true."""

    def __init__(
        self, mongo: Mongo, nats: Nats, quiet_pace: QuietPace | None = None, outage: Outage | None = None
    ) -> None:
        """`quiet_pace` is told how far the oplog reaches back, `outage` which server does not answer."""
        self._mongo = mongo
        self._nats = nats
        self._quiet_pace = quiet_pace or QuietPace()
        self._outage = outage or Outage()
        self.mongo = Component(up=False, reason="MongoDB was not reached yet")
        self.nats = Component(up=False, reason="NATS was not reached yet")
        self.mongo_seen = asyncio.Event()
        """Set once MongoDB has been asked."""
        self.operation_time = 0
        self.oplog: Oplog | None = None
        self.oplog_why: str | None = "not read yet"
        self._oplog_read_at = float("-inf")
        self._said: dict[str, tuple[str | None, float]] = {}
        """The last reason that was logged for each server that is down, and when."""
        self._down_since: dict[str, float] = {}
        self._tidied_at = float("-inf")

    @classmethod
    def of(cls, dependencies: Dependencies) -> "ServerProbe":
        """Return the probe that tells the runs of a process."""
        return cls(dependencies.mongo, dependencies.nats, dependencies.quiet_pace, dependencies.outage)

    async def run(self) -> None:
        """Ask both servers, until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(INTERVAL_SECONDS)

    async def look(self) -> None:
        """Ask both servers once, at the same time."""
        await asyncio.gather(self._look_at_mongo(), self._look_at_nats())
        if not (self.mongo.up and self.nats.up):
            self._tidy()

    def _tidy(self) -> None:
        """Collect the cycles that every attempt to reach a server leaves behind, and that `serve` looks for seldom.

        Many an error lives on as a watcher's reason until its next attempt, and has grown old by then: what is old has
        to be looked through as well, though that takes longer. Nothing is published meanwhile that it could delay."""
        now = time.monotonic()
        if now - self._tidied_at >= ALL_GENERATIONS_SECONDS:
            self._tidied_at = now
            gc.collect()
        else:
            gc.collect(1)

    def explains(self, error: Exception, attempts: int) -> bool:
        """Return whether an error, met in so many attempts in a row, is an outage of MongoDB, which is logged here."""
        return isinstance(error, TransientError) and (attempts < NOTICED_ATTEMPTS or not self.mongo.up)

    async def _look_at_mongo(self) -> None:
        self.mongo = await self._ask("MongoDB", self._ask_mongo, self.mongo)
        self.mongo_seen.set()

    async def _look_at_nats(self) -> None:
        self.nats = await self._ask("NATS", self._nats.ping, self.nats)

    async def _ask_mongo(self) -> None:
        self.operation_time = await self._mongo.ping()
        if time.monotonic() - self._oplog_read_at < OPLOG_SECONDS and not self._quiet_pace.hasty:
            return
        self.oplog = await self._mongo.read_oplog()
        self.oplog_why = (
            None
            if self.oplog is not None
            else "the account may not read local.oplog.rs; grant it the role read on local, or clusterMonitor"
        )
        self._oplog_read_at = time.monotonic()
        self._quiet_pace.oplog_seen(self.oplog, self.operation_time, self._oplog_read_at)

    async def _ask(self, name: str, question: Callable[[], Awaitable[None]], before: Component) -> Component:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await question()
            now = Component(up=True)
        except TimeoutError:
            now = Component(up=False, reason=f"{name} did not answer within {ANSWER_SECONDS:.0f} seconds")
        except ChangewireError as error:
            now = Component(up=False, reason=str(error))
        except Exception as error:
            now = Component(up=False, reason=f"asking {name} failed inside Changewire; the log has the details")
            if before.reason != now.reason:  # else it was said with an earlier look
                log.error("probe_failed", component=name, exc_info=error)
        self._outage.seen(name, None if now.up else now.reason, time.time())
        self._say(name, now)
        return now

    def _say(self, name: str, now: Component) -> None:
        """Log an outage and its end. A new reason is logged too, but not with every look."""
        at, known = time.monotonic(), self._said.get(name)
        if now.up:
            if known is not None:
                del self._said[name]
                log.info("server_reachable", component=name, after_seconds=round(at - self._down_since.pop(name), 1))
            return
        self._down_since.setdefault(name, at)
        if known is not None and (now.reason == known[0] or at - known[1] < SAY_SECONDS):
            return
        self._said[name] = (now.reason, at)
        log.warning("server_unreachable", component=name, reason=now.reason)
