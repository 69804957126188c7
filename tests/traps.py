"""The service with a trap in it: at one exact moment, named in the variable TRAP, the process kills or stops itself.

Run as a program (`python -m tests.traps serve`), which imports no more than the service does. See `Trap`.
"""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

LATER_SECONDS = 0.01
"""Some of what was sent has left the process by then."""


@dataclass(frozen=True)
class Trap:
    """One exact moment in the service's life, at which the process sends itself a signal.

    `moment` is one of MOMENTS, `nth` which time it has to come, from 1 on, `signal` KILL, or STOP for a zombie.
    """

    moment: str
    nth: int = 1
    signal: str = "KILL"

    def __post_init__(self) -> None:
        assert self.moment in MOMENTS, self.moment

    def __str__(self) -> str:
        return f"{self.moment}/{self.nth}/{self.signal}"


MOMENTS = (
    "before-first-position",  # nothing is stored of a new watcher but the watcher itself
    "after-first-position",  # its start is stored, no event is read yet
    "before-publish",  # a batch is encoded, nothing is sent
    "publish-fails",  # the nth attempt, all before it having failed
    "before-read-back",  # a batch is stored, its acknowledgement was lost, and nobody has looked yet
    "after-publish",  # a batch is acknowledged, nothing has been done with that
    "before-checkpoint",  # about to be stored
    "after-checkpoint",
    "before-letter",  # a change is about to be set aside
    "after-letter",  # it is, and nothing has been done with that
    "before-receipt",  # a dead letter is about to be replayed
    "after-receipt",
    "before-removal",  # it is replayed, and about to be removed
    "after-removal",
    "before-plan",  # a chunk of a snapshot is read, and nothing of it is stored
    "after-plan",  # it is planned, and nothing is sent
    "before-rows",  # its rows are about to be sent
    "within-rows",  # they are sent, with a change after them perhaps, and nothing is heard of them
    "after-rows",  # they are acknowledged, and nothing has been done with that
    "before-forgotten",  # the checkpoint is past a chunk, and its plan about to be dropped, or the run's end stored
    "after-forgotten",
)
ROWS = ("before-rows", "within-rows", "after-rows")
"""Moments of a publish, which come where it begins or ends with a snapshot's row."""


def spring(trap: Trap) -> None:
    """Patch the adapters of this process so that the trap springs."""
    from app.domain.errors import OutcomeUnknown, SinkUnavailable
    from app.jetstream.dead_letter_queue import JetStreamDeadLetterQueue
    from app.jetstream.publish.sender import failed
    from app.jetstream.sink import JetStreamSink
    from app.mongodb.bulk_checkpoint_store import BulkCheckpointStore
    from app.mongodb.checkpoint_store import MongoCheckpointStore
    from app.mongodb.snapshot_store import MongoSnapshotStore

    times = 0
    lost = False

    def came() -> bool:
        nonlocal times
        times += 1
        return times == trap.nth

    def fire() -> None:
        os.kill(os.getpid(), getattr(signal, f"SIG{trap.signal}"))

    def patch(owner: type, name: str, moment: Iterable[str], wrapped: Callable[..., Any]) -> None:
        if trap.moment in moment:
            original = getattr(owner, name)

            async def method(self: Any, *arguments: Any, **named: Any) -> Any:
                return await wrapped(functools.partial(original, **named), self, *arguments)

            setattr(owner, name, method)

    async def around(original: Any, self: Any, *arguments: Any) -> Any:
        due = came()
        if due and trap.moment.startswith("before"):
            fire()
        result = await original(self, *arguments)
        if due and trap.moment.startswith("after"):
            fire()
        return result

    async def planning(original: Any, self: Any, before: Any, after: Any) -> Any:
        if (after.next > before.next) is not trap.moment.endswith("plan"):
            return await original(self, before, after)
        return await around(original, self, before, after)

    def is_of_rows(changes: Any) -> bool:
        return ":s:" in changes[0].token or ":s:" in changes[-1].token

    async def with_rows(original: Any, self: Any, changes: Any, *arguments: Any) -> Any:
        due = is_of_rows(changes) and came()
        if due and trap.moment == "before-rows":
            fire()
        if due and trap.moment == "within-rows":
            asyncio.get_running_loop().call_later(LATER_SECONDS, fire)
        result = await original(self, changes, *arguments)
        if due and trap.moment == "after-rows":
            fire()
        return result

    async def failing(original: Any, self: Any, *arguments: Any) -> Any:
        if came():
            fire()
        elif times < trap.nth:
            raise SinkUnavailable("the trap says that there is no connection")
        return await original(self, *arguments)

    async def unacknowledged(original: Any, self: Any, *arguments: Any) -> Any:
        nonlocal lost
        result = await original(self, *arguments)
        if came():
            lost = True
            raise OutcomeUnknown("the trap has eaten the acknowledgement")
        return result

    async def reading_back(original: Any, self: Any) -> Any:
        nonlocal lost
        if lost:
            lost = False
            fire()
        return await original(self)

    sends = JetStreamSink.send

    def send(self: Any, *arguments: Any, **named: Any) -> asyncio.Future[int]:
        """The moments of `publish`, where several batches are under way: it is written before it returns."""
        rows = trap.moment in ROWS and is_of_rows(arguments[0]) and came()
        if trap.moment == "before-publish" and came():
            fire()
        if rows and trap.moment == "before-rows":
            fire()
        if trap.moment == "publish-fails":
            if came():
                fire()
            elif times < trap.nth:
                return failed(SinkUnavailable("the trap says that there is no connection"))
        stored = sends(self, *arguments, **named)
        if rows and trap.moment == "within-rows":
            asyncio.get_running_loop().call_later(LATER_SECONDS, fire)
        if rows and trap.moment == "after-rows":
            stored.add_done_callback(lambda _: fire())
        if trap.moment == "after-publish":
            return asyncio.ensure_future(around(answer, stored))
        if trap.moment == "before-read-back":
            return asyncio.ensure_future(unacknowledged(answer, stored))
        return stored

    async def answer(stored: asyncio.Future[int]) -> int:
        return await stored

    if trap.moment in ("before-publish", "publish-fails", "before-read-back", "after-publish", *ROWS):
        JetStreamSink.send = send  # type: ignore[method-assign]
    for store in (MongoCheckpointStore, BulkCheckpointStore):  # of a watcher with a place of its own, of one without
        patch(store, "create", ("before-first-position", "after-first-position"), around)
        patch(store, "advance", ("before-checkpoint", "after-checkpoint"), around)
    patch(MongoSnapshotStore, "change", ("before-plan", "after-plan", "before-forgotten", "after-forgotten"), planning)
    patch(JetStreamDeadLetterQueue, "store", ("before-letter", "after-letter"), around)
    patch(JetStreamDeadLetterQueue, "keep_receipt", ("before-receipt", "after-receipt"), around)
    patch(JetStreamDeadLetterQueue, "remove", ("before-removal", "after-removal"), around)
    patch(JetStreamSink, "publish", ("before-publish", "after-publish"), around)
    patch(JetStreamSink, "publish", ("publish-fails",), failing)
    patch(JetStreamSink, "publish", ROWS, with_rows)
    patch(JetStreamSink, "publish", ("before-read-back",), unacknowledged)
    patch(JetStreamSink, "tail", ("before-read-back",), reading_back)


def main() -> int:
    """Set the trap and run the command line."""
    moment, nth, name = os.environ.pop("TRAP").split("/")
    spring(Trap(moment, int(nth), name))
    from app.__main__ import main as command_line

    return command_line()


if __name__ == "__main__":
    sys.exit(main())
