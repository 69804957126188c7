"""The audit log: a log line, named `audit`, for each request that asks for a change, also for one that fails. A request
that changes several watchers has a line for each. Where another instance carries a request out, the line is in that
one's log, with the instance that was asked as `through`.

It says who asked, from where, for what, how it ended, and which fields of the watcher's definition changed. Refused
requests (401, 403) are logged too, at most `REFUSALS` a minute: guessing tokens must not fill the disk. What a change
did is noted by the registry (`app/control/audit.py`).
"""

import asyncio
import time

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.auth import OPEN_METHODS, caller_of
from app.control import audit
from app.domain.plain import plain

REFUSALS = 60
"""Lines a minute about requests without a token that permits them."""
AT_ONCE = 50
"""Lines that are written before other tasks have their turn."""

log = structlog.get_logger("audit")


class AuditLog:
    """ASGI middleware around `Authority`, which notes in the scope who asks."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._minute = 0
        self._written = 0
        self._left_out = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in OPEN_METHODS:
            # A read is logged only where it is refused for want of a token.
            await self.app(scope, receive, self._watching_reads(scope, send) if scope["type"] == "http" else send)
            return
        status: int | None = None

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        record = audit.Record()
        token = audit.record.set(record)
        try:
            await self.app(scope, receive, watched)
        finally:  # also for a cancelled request: what it has changed stays changed
            audit.record.reset(token)
            if not record.elsewhere:
                await self._write(scope, record, status)

    def _watching_reads(self, scope: Scope, send: Send) -> Send:
        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] in (401, 403):
                await self._write(scope, audit.Record(), message["status"])
            await send(message)

        return watched

    async def _write(self, scope: Scope, record: audit.Record, status: int | None) -> None:
        who, refused = caller_of(scope), status in (401, 403)
        if refused and not self._has_room():
            return
        client, route = scope.get("client"), scope.get("route")
        said = {
            "who": who.name,
            "role": who.role,
            "remote": client[0] if client else None,
            "action": getattr(route, "name", None),  # None where it reached no call
            "method": scope["method"],
            "path": plain(scope["path"][:300]),
        }
        ended = {"status": status, "outcome": _outcome(status)}
        if refused:
            record.facts["unsaid"], self._left_out = self._left_out, 0
        named = scope.get("path_params", {}).get("name")
        cancelled: asyncio.CancelledError | None = None
        for number, change in enumerate(record.changes or [audit.Changed(named, None, None)], 1):
            watcher = {"watcher": None if change.watcher is None else plain(change.watcher[:300])}
            what = {"before": change.before, "after": change.after} if record.changes else {}
            if refused:
                log.warning("audit", **said, **watcher, **ended, **record.facts)
            else:
                log.info("audit", **said, **watcher, **ended, **what, **record.facts)
            if number % AT_ONCE == 0:
                try:
                    await asyncio.sleep(0)
                except asyncio.CancelledError as error:  # the other lines are about what has been changed all the same
                    cancelled = error
        if cancelled is not None:
            raise cancelled

    def _has_room(self) -> bool:
        minute = int(time.monotonic() // 60)
        if minute != self._minute:
            self._minute, self._written = minute, 0
        self._written += 1
        if self._written > REFUSALS:
            self._left_out += 1
            return False
        return True


def _outcome(status: int | None) -> str:
    if status is None:
        return "unknown"
    if status in (401, 403):
        return "refused"
    return "done" if status < 400 else "failed"
