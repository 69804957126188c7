"""The publish modes behind one contract."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from app.domain.events import Change
from app.jetstream.publish.atomic import Atomic
from app.jetstream.publish.fast_ingest import FastIngest
from app.jetstream.publish.sender import Sender
from app.jetstream.publish.single import Single
from app.jetstream.publish.window import Window
from app.jetstream.streams import Mode


class PublishMode(Protocol):
    """One way to store changes after a sequence."""

    async def publish(self, changes: Sequence[Change], fence: int) -> int:
        """Store one change or more after sequence `fence`, all in order, and return the new last sequence.

        Raises as `ports.EventSink.publish`."""


class Pipelined(PublishMode, Protocol):
    """One that may have several sends under way, as `ports.EventSink` says."""

    def send(self, changes: Sequence[Change], fence: int, *, more: bool) -> asyncio.Future[int]: ...
    async def ready(self, changes: Sequence[Change]) -> None: ...
    def settle(self) -> None: ...
    async def close(self) -> None:
        """Give up what is under way. May be called twice."""


@dataclass(frozen=True, slots=True)
class Modes:
    """Every mode of one sender, and those that may have several sends under way."""

    all: Mapping[Mode, PublishMode]
    pipelined: Mapping[Mode, Pipelined]


def publish_modes(sender: Sender) -> Modes:
    """Return every mode, over one sender."""
    pipelined: dict[Mode, Pipelined] = {"fast_ingest": FastIngest(sender), "atomic": Atomic(sender)}
    return Modes({**pipelined, "window": Window(sender), "single": Single(sender)}, pipelined)
