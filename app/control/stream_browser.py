"""Looking at watchers' streams: what one is and holds, and its messages as they arrive.

Following is for people: a few messages at a time and a pause in between, so that it slows down neither NATS nor the
watchers, which share this process and its connection. A follower that cannot keep up with a busy stream is taken to
the stream's end.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING

from app.control.fleet import Watched
from app.domain.errors import ChangewireError, NotFound, Unavailable
from app.domain.watcher import Watcher
from app.pipeline.dependencies import Dependencies, servers_needed
from app.ports import StreamReader

if TYPE_CHECKING:  # imported by the first who looks, not at the start
    from app.domain.streams import Seen, Skipped, StoredMessage, StreamFacts

AT_ONCE = 50
"""Messages that are read before others get a turn."""
PAUSE_SECONDS = 0.25
"""Between two rounds of a follower; as many times that as there are followers, where there was much to read: so all of
them together read 200 messages a second at most."""
MUCH = 20
FAR_BEHIND = 1000
"""Sequences by which a follower may be behind before the rest is skipped."""
QUIET_SECONDS = 15.0
MOST_FOLLOWERS = 8
"""Of one process, all watchers together."""


class StreamBrowser:
    """The streams of all watchers. `task_of` finds a watcher's task by name, or raises NotFound, Unavailable."""

    def __init__(
        self,
        dependencies: Dependencies,
        task_of: Callable[[str], Awaitable[Watched]],
        *,
        quiet_seconds: float = QUIET_SECONDS,
    ) -> None:
        self._dependencies = dependencies
        self._task_of = task_of
        self._quiet_seconds = quiet_seconds
        self._followers = 0
        self._closing = asyncio.Event()

    def close(self) -> None:
        """End all that is being followed: the service stops."""
        self._closing.set()

    async def facts(self, name: str) -> "StreamFacts":
        """Return what a watcher's stream is and holds. Raises NotFound, Conflict, Unavailable."""
        watcher = (await self._task_of(name)).stored.watcher
        async with servers_needed():
            facts = await self._dependencies.nats.reader(watcher).facts()
        if facts is None:
            raise NotFound(f"the stream {watcher.sink.stream} does not exist; {name} creates it when it first runs")
        return facts

    async def follow(self, name: str, last: int) -> AsyncGenerator["Seen", None]:
        """Yield the last messages, then each that arrives, until the watcher is removed or the service stops.

        The first is `Quiet`, once all that may be refused was not. Raises NotFound, Conflict, Unavailable before it."""
        from app.domain.streams import Quiet

        if self._followers >= MOST_FOLLOWERS:
            raise Unavailable(f"{MOST_FOLLOWERS} streams are being followed already, as many as one instance does")
        self._followers += 1
        try:
            watcher = (await self._task_of(name)).stored.watcher
            async with servers_needed():
                await self._dependencies.nats.reader(watcher).newest()
            yield Quiet()
            said = time.monotonic()
            async for seen in self._messages(name, watcher, last):
                now = time.monotonic()
                if not isinstance(seen, Quiet) or now - said >= self._quiet_seconds:
                    said = now
                    yield seen
        finally:
            self._followers -= 1

    async def _messages(self, name: str, watcher: Watcher, last: int) -> AsyncIterator["Seen"]:
        """What there is to say, `Quiet` at least once in a round."""
        from app.domain.streams import Quiet, Trouble

        place, trouble = _Place(last), None
        while not self._closing.is_set():
            found: list[StoredMessage] = []
            try:
                skipped, found = await place.advance(self._dependencies.nats.reader(watcher))
                if skipped is not None:
                    yield skipped
                trouble = None
            except ChangewireError as error:
                if str(error) != trouble:
                    trouble = str(error)
                    yield Trouble(trouble)
            for message in found:
                yield message
            yield Quiet()
            await self._pause(4 if trouble is not None else self._followers if len(found) >= MUCH else 1)
            try:
                now = (await self._task_of(name)).stored.watcher
            except NotFound:
                return
            except ChangewireError:
                continue
            if (now.sink.stream, now.space) != (watcher.sink.stream, watcher.space):
                place = _Place(last)
            watcher = now

    async def _pause(self, times: int) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PAUSE_SECONDS * times):
                await self._closing.wait()


class _Place:
    """How far one follower has read a stream, of which it begins with the `last` so many messages."""

    def __init__(self, last: int) -> None:
        self._last = last
        self._position: int | None = None

    async def advance(self, reader: StreamReader) -> "tuple[Skipped | None, list[StoredMessage]]":
        """Read what comes next, and what was skipped before that. Raises what the reader raises."""
        from app.domain.streams import Skipped

        newest, before = await reader.newest(), self._position
        if before is None or newest < before:  # the stream was recreated, or purged
            found = await reader.last(self._last)
            self._position = max(newest, found[-1].sequence if found else 0)
            return None, found
        if newest == before:
            return None, []
        too_far = newest - before > FAR_BEHIND
        found = await (reader.last(self._last) if too_far else reader.after(before, AT_ONCE))
        self._position = found[-1].sequence if found else newest
        gap = too_far and found and found[0].sequence > before + 1
        return Skipped(before, found[0].sequence) if gap else None, found
