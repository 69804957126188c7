"""Looking at watchers' streams: what one is and holds, and its messages as they arrive.

Following is for people: a few messages at a time and a pause in between, so that neither NATS nor the capture, which
shares this process and its connection, notices. Whoever cannot keep up with a busy stream is taken to its end. Not its
business: HTTP (`api/routes/streams.py`), how a stream is asked (`ports.StreamReader`).
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

if TYPE_CHECKING:  # imported by the first who looks, not at the start
    from app.domain.streams import Seen, StoredMessage, StreamFacts

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
        from app.domain.streams import Quiet, Skipped, Trouble

        position: int | None = None
        trouble: str | None = None
        while not self._closing.is_set():
            reader = self._dependencies.nats.reader(watcher)
            found: list[StoredMessage] = []
            try:
                newest = await reader.newest()
                if position is None or newest < position:  # the stream was made anew, or purged
                    found = await reader.last(last)
                    position = max(newest, found[-1].sequence if found else 0)
                elif newest - position > FAR_BEHIND:
                    found = await reader.last(last)
                    if found and found[0].sequence > position + 1:
                        yield Skipped(position, found[0].sequence)
                    position = found[-1].sequence if found else newest
                elif newest > position:
                    found = await reader.after(position, AT_ONCE)
                    position = found[-1].sequence if found else newest
                trouble = None
            except ChangewireError as error:
                if str(error) != trouble:
                    trouble = str(error)
                    yield Trouble(trouble)
            for message in found:
                yield message
            yield Quiet()
            with contextlib.suppress(TimeoutError):
                times = 4 if trouble is not None else self._followers if len(found) >= MUCH else 1
                async with asyncio.timeout(PAUSE_SECONDS * times):
                    await self._closing.wait()
            try:
                now = (await self._task_of(name)).stored.watcher
            except NotFound:
                return
            except ChangewireError:
                continue
            if (now.sink.stream, now.space) != (watcher.sink.stream, watcher.space):
                position = None
            watcher = now
