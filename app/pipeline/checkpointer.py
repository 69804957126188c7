"""Checkpoints written in the background: the latest wins, and publishing never waits for one.

The stream is the ledger, so a checkpoint may lag; it must never lead. The capture notes a position only once everything
up to it is acknowledged, and this task writes the newest noted one, at most twice a second (a quiet collection's as
`quiet_pace.py` says). A `prompt` one is written at once while changes are few: mongodb-nats-connector knows nothing
but this token, and starts from it when a user goes back to it.
"""

import asyncio
from collections.abc import Callable

import structlog

from app.domain import backoff
from app.domain.errors import PermanentError, Stale, StoreUnavailable
from app.domain.position import Checkpoint
from app.domain.second_look import SecondLook
from app.pipeline.quiet_pace import QuietPace
from app.ports import CheckpointStore, Observer

log = structlog.get_logger(__name__)

BUSY_SECONDS = 0.5
"""The least time between two checkpoints while events flow: each is a majority write and an oplog entry."""
SAY_ATTEMPTS = 4
"""So many attempts in a row fail before it is said. In an outage of MongoDB the watcher has met it by then."""
PROMPT_QUIET_SECONDS = 10.0
"""The same of a prompt one while nothing but the position moves."""
PROMPT_SECONDS = 0.1
"""The least time between two prompt ones while changes are many: a hundredth of the processor time at most."""
PROMPT_MOST_SECONDS = 1.0
"""And the most, where a watcher of many entries has as many places to write."""
FEW_A_SECOND = 250
"""With no more changes than that a prompt checkpoint is written with each."""
_REMEMBERED = 280
"""A burst counts as so many changes at the most, so that it is over a second after it has ended."""


class Pace:
    """Whether changes are few: a bucket that leaks `FEW_A_SECOND`, and holds as many before it counts as full."""

    def __init__(self, places: int = 1) -> None:
        """`places` is how many have to be written for one change."""
        self._places = places
        self._level = 0.0
        self._at = 0.0

    def add(self, changes: int, now: float) -> None:
        self._level = min(_REMEMBERED, self._left(now) + changes * self._places)
        self._at = now

    def few(self, now: float) -> bool:
        return self._left(now) <= FEW_A_SECOND

    def _left(self, now: float) -> float:
        return max(0.0, self._level - FEW_A_SECOND * max(0.0, now - self._at))


class Checkpointer:
    """Writes one watcher's checkpoints. `note` never waits; `run` is the task that writes."""

    def __init__(
        self,
        store: CheckpointStore,
        observer: Observer,
        *,
        watcher: str,
        clock: Callable[[], float],
        prompt: bool = False,
        places: int = 1,
        quiet_pace: QuietPace | None = None,
    ) -> None:
        """`places` is how many are written each time: of many, prompt ones are written less often."""
        self._store = store
        self._observer = observer
        self._watcher = watcher
        self._clock = clock
        self._prompt = prompt
        self._quiet_pace = quiet_pace or QuietPace()
        self._share = self._quiet_pace.draw()
        self._pace = Pace(places)
        self._prompt_seconds = min(PROMPT_MOST_SECONDS, PROMPT_SECONDS * places)
        self._latest: Checkpoint | None = None
        self._written: Checkpoint | None = None
        self._wake = asyncio.Event()
        self.written_at: float | None = None

    @property
    def position(self) -> str | None:
        """The position that is stored; None before this writer has stored one."""
        return None if self._written is None else self._written.token

    def note(self, checkpoint: Checkpoint, *, quiet: bool = False, changes: int = 1) -> None:
        """Take a position that is acknowledged; `quiet` where no event came with it, else so many `changes`."""
        self._latest = checkpoint
        if not quiet:
            self._pace.add(changes, self._clock())
        if not quiet or self.written_at is None or self._quiet_for() >= self._quiet_seconds():
            self._wake.set()

    def _quiet_for(self) -> float:
        return self._clock() - (self.written_at or 0.0)

    def _quiet_seconds(self) -> float:
        seconds = self._quiet_pace.seconds * self._share
        return min(PROMPT_QUIET_SECONDS, seconds) if self._prompt else seconds

    async def run(self) -> None:
        """Write what is noted, indefinitely. Raises Stale where a later epoch has begun, NotAuthorised."""
        attempt, second_look = 0, SecondLook()
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self.flush()
            except (StoreUnavailable, PermanentError) as error:
                if isinstance(error, StoreUnavailable):
                    second_look.forget()
                elif second_look.believes(error, now=self._clock(), well_at=self.written_at or 0.0):
                    error.confirm_seconds = 0.0  # that was done here: publishing goes well meanwhile
                    raise
                attempt += 1
                if attempt == SAY_ATTEMPTS:
                    log.warning("checkpoint_delayed", watcher=self._watcher, reason=str(error))
                self._wake.set()
                await asyncio.sleep(max(BUSY_SECONDS, backoff.delay(attempt, 1.0)))
            else:
                attempt = 0
                if not self._prompt:
                    await asyncio.sleep(BUSY_SECONDS)
                elif not self._pace.few(self._clock()):
                    await asyncio.sleep(self._prompt_seconds)

    async def flush(self) -> None:
        """Write the newest noted position now, if it is not written yet. Raises as `run`, and StoreUnavailable."""
        checkpoint = self._latest
        if checkpoint is None or checkpoint is self._written:
            return
        if not await self._store.advance(checkpoint):
            stored = await self._store.read()
            if stored is not None and (stored.epoch or 0) > (checkpoint.epoch or 0):
                raise Stale(f"the checkpoint is of epoch {stored.epoch} by now, this writer's of {checkpoint.epoch}")
        self._written = checkpoint
        self.written_at = self._clock()
        self._share = self._quiet_pace.draw()
        self._observer.checkpointed(self._watcher, self.written_at)
