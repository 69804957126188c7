"""How old the newest message of each stream is: what a consumer would call the lag.

As the writers never rest, a last message of long ago means that nothing comes through, whether it is MongoDB that takes
no writes, the service that does not relay them, or JetStream that does not store them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from base64 import b64decode
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Any

import nats.errors
from nats.aio.client import Client

from app.devservers.servers import NatsServer
from tests.faults.cluster import accompanied, connected
from tests.faults.writers import LAST, Writers

LOOK_SECONDS = 0.2
GOOD_SECONDS = 1.0
"""Below this the lag is what it is in quiet times."""
STEADY_SECONDS = 1.5
"""For how long it has to stay there before anybody believes it."""


class Lag:
    """Looks at the streams through every node, past the proxies, and remembers when the lag was last too long."""

    def __init__(
        self, nodes: Sequence[NatsServer], streams: Sequence[str], writers: Writers, *, good: float = GOOD_SECONDS
    ) -> None:
        """`good` is the lag in seconds below which all is well."""
        self._nodes = nodes
        self._writers = writers
        self._good = good
        self._newest = dict.fromkeys(streams, 0.0)
        self._ended: set[str] = set()
        self.away: set[str] = set()
        """Streams that nothing can come to, since the only server that has them is away: they are not judged."""
        self.late_at = 0.0
        """The monotonic time at which it was last too long."""
        self.idle_at = 0.0
        """The monotonic time at which MongoDB had last taken no write for that long."""

    @property
    def seconds(self) -> float:
        """The age of the newest message of the stream that is furthest behind."""
        return time.time() - self.reached

    @property
    def reached(self) -> float:
        """When that message's change was made, in seconds since 1970."""
        return min(newest for stream, newest in self._newest.items() if stream not in self.away)

    def of(self, stream: str) -> float:
        """The age of this stream's newest message."""
        return time.time() - self._newest[stream]

    def newest(self, stream: str) -> float:
        """When the newest message's change of this stream was made, in seconds since 1970."""
        return self._newest[stream]

    @property
    def ended(self) -> bool:
        """Whether every collection's last document has come."""
        return self._ended == set(self._newest)

    @property
    def steady(self) -> bool:
        """Whether it has been short for long enough."""
        return time.monotonic() - self.late_at > STEADY_SECONDS

    def watched(self) -> AbstractAsyncContextManager[None]:
        """Look, for as long as the block lasts."""
        return accompanied(self._judge(), *(self._look(node) for node in self._nodes))

    async def _judge(self) -> None:
        while True:
            if self.seconds > self._good:
                self.late_at = time.monotonic()
            if time.monotonic() - self._writers.acknowledged_at > GOOD_SECONDS:
                self.idle_at = time.monotonic()
            await asyncio.sleep(LOOK_SECONDS / 4)

    async def _look(self, node: NatsServer) -> None:
        while True:
            with contextlib.suppress(OSError, nats.errors.Error, TimeoutError):
                async with connected(node) as client:
                    while client.is_connected:
                        await asyncio.gather(
                            *(self._ask(client, stream) for stream in self._newest if stream not in self.away)
                        )
                        await asyncio.sleep(LOOK_SECONDS)
            await asyncio.sleep(LOOK_SECONDS)

    async def _ask(self, client: Client, stream: str) -> None:
        wanted = json.dumps({"last_by_subj": f"{stream}.>"}).encode()
        try:
            answer = json.loads((await client.request(f"$JS.API.STREAM.MSG.GET.{stream}", wanted, timeout=1)).data)
        except (TimeoutError, nats.errors.NoRespondersError):
            return  # the stream is away, or all of this server is
        if "message" in answer:
            event: dict[str, Any] = json.loads(b64decode(answer["message"]["data"]))
            if "wallTime" not in event:  # a gap's marker, or somebody else's message
                return
            written = datetime.fromisoformat(event["wallTime"]["$date"]).timestamp()
            self._newest[stream] = max(self._newest[stream], written)
            if event["documentKey"]["_id"] == LAST:
                self._ended.add(stream)
