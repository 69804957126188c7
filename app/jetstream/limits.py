"""What a NATS server takes of one message, found out where it does not say so.

A server cuts the connection of a client that sends more than it takes, and with it every watcher's. It tells
`max_payload` on connecting, though not where the account's own limit is lower, or the configuration was reloaded since;
`max_control_line` it never tells. So a violation is a lesson: on the next connection the limit is looked for, by
messages of different sizes on connections of their own. It happens once, not with every attempt to send.

What becomes of a message that is too large is decided in `pipeline/batch_encoder.py`.
"""

from collections.abc import Awaitable, Callable
from typing import Final, Literal

import structlog

from app.domain.errors import SinkUnavailable

Kind = Literal["payload", "line"]
Fits = Callable[[Kind, int], Awaitable[bool]]
"""Tells whether the server takes a message of this size, or a control line of this length."""

CONTROL_LINE: Final = 4096
"""A server's max_control_line where it is not configured: the most bytes of a command, its subjects included."""
LINE_BYTES: Final = 96
"""What a command takes beside its subject: verb, reply subject, and two sizes."""
BATCH_LINE_BYTES: Final = 140
"""The same in a fast-ingest batch, whose reply subjects are longer."""
MAX_HEADERS: Final = 65_535
"""JetStream stores no more bytes of headers in a message (error 10097)."""
_VIOLATIONS: Final[dict[str, Kind]] = {
    "maximum payload violation": "payload",
    "maximum control line exceeded": "line",
}
_LEAST: Final[dict[Kind, int]] = {"payload": 256, "line": 128}
"""Less than that makes no connection of use."""
_NAMES: Final[dict[Kind, str]] = {"payload": "max_payload", "line": "max_control_line"}
_STEP: Final = 32
"""How exactly a limit is found out."""

log = structlog.get_logger(__name__)


class Limits:
    """The limits of the servers that one connection goes to."""

    def __init__(self) -> None:
        self.max_payload = 1024 * 1024
        """The most bytes, headers and body, of a message."""
        self.max_control_line = CONTROL_LINE
        """The most bytes of a command, without headers and body."""
        self._told = self.max_payload
        self._learnt: dict[Kind, int] = {}
        self._doubted: set[Kind] = set()

    def lost(self, reason: str) -> None:
        """Take in why a connection was lost."""
        self._doubted |= {kind for words, kind in _VIOLATIONS.items() if words in reason.lower()}

    async def meet(self, told: int, fits: Fits) -> None:
        """Take in what a server said on connecting, and look for the limits that it does not tell."""
        if told != self._told:  # another server, or a reloaded one: what it says explains a violation
            self._told = told
            self._learnt.pop("payload", None)
            self._doubted.discard("payload")
        for kind in sorted(self._doubted | self._learnt.keys()):
            upper = told if kind == "payload" else CONTROL_LINE
            try:
                found = await self._find(kind, upper, fits)
            except SinkUnavailable as error:  # no more connections for this account, for instance
                log.warning("nats_limit_unknown", limit=_NAMES[kind], reason=str(error))
                if kind not in self._doubted:
                    continue
                found = max(_LEAST[kind], self._learnt.get(kind, upper) // 2)
            self._doubted.discard(kind)
            if found == self._learnt.get(kind, upper):
                continue
            if found == upper:
                del self._learnt[kind]
            else:
                self._learnt[kind] = found
            log.warning("nats_limit_learnt", limit=_NAMES[kind], bytes=found)
        self.max_payload = min(told, self._learnt.get("payload", told))
        self.max_control_line = self._learnt.get("line", CONTROL_LINE)

    async def _find(self, kind: Kind, upper: int, fits: Fits) -> int:
        if await fits(kind, upper):
            return upper
        low, high, known = min(_LEAST[kind], upper), upper, self._learnt.get(kind)
        if known is not None and low < known < high and await fits(kind, known):
            low = known
            if known + _STEP < high and not await fits(kind, known + _STEP):
                return known
        while high - low > _STEP:
            middle = (low + high) // 2
            if await fits(kind, middle):
                low = middle
            else:
                high = middle
        return low
