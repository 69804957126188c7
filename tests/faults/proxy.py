"""A TCP proxy in front of one server, whose connections can be delayed, slowed, stalled and torn.

Bytes are never dropped or changed: a network that loses packets shows to TCP as one that stalls, or as a reset. What is
stalled flows on once the fault is over. Only what comes from Changewire is harmed: `mark` is what its first bytes hold,
where others (replication, the writers) come by the same way. What comes from one instance alone is told by its first
bytes too (`Apart`).

A `Hold` stops one connection in the middle of something that is told by its bytes: a batch, of which the server has the
first part by then.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from app.devservers.servers import HOST, free_port, release_port

CHUNK = 16 * 1024
AHEAD = 64
"""Chunks that may be under way, so that a delay is no limit on the rate."""
BATCH_BYTES = 1_200
"""A write of so many bytes is taken for (a part of) a batch: more than a handshake or a heartbeat."""
RESET = struct.pack("ii", 1, 0)

Direction = Literal["up", "down"]


class Hold:
    """Waits for bytes towards a server that match a pattern, and holds their connection between two halves of them."""

    def __init__(self, pattern: re.Pattern[bytes], after: int = 0) -> None:
        self.held = asyncio.Event()
        """Set once a connection is held: the server has what came before, and half of a chunk that matches."""
        self.reset = False
        """Whether the connection is reset instead of going on."""
        self._pattern = pattern
        self.after = after
        """So many chunks that match go through before."""
        self._free = asyncio.Event()

    def let_go(self) -> None:
        """Let the connection go on, and take no other."""
        self._free.set()

    def takes(self, data: bytes) -> bool:
        """Whether this chunk is the one to hold; counts it."""
        if self.held.is_set() or self._free.is_set() or not self._pattern.search(data):
            return False
        self.after -= 1
        if self.after >= 0:
            return False
        self.held.set()
        return True

    async def freed(self) -> None:
        """Wait until the connection may go on."""
        await self._free.wait()


class Link:
    """What is wrong with the ways to the servers of one cluster; shared by its proxies. `up` is towards the server."""

    def __init__(self) -> None:
        self.delay = 0.0
        """Seconds that each direction takes."""
        self.rate: float | None = None
        """Bytes per second, of each direction of each connection."""
        self.tears = 0
        """How many batches are still to be cut short by a reset."""
        self.tear: tuple[Direction, float] = ("up", 0.5)
        """Where: the direction of the batch, and the part of it that still arrives (1: all of it, but no answer)."""
        self.hold: Hold | None = None
        self._open = {"up": asyncio.Event(), "down": asyncio.Event()}
        self.heal()

    def heal(self) -> None:
        """End every fault."""
        self.delay, self.rate, self.tears = 0.0, None, 0
        if self.hold is not None:
            self.hold.let_go()
            self.hold = None
        for direction in self._open.values():
            direction.set()

    def stall(self, *directions: Direction) -> None:
        """Let nothing through any more."""
        for direction in directions:
            self._open[direction].clear()

    async def passes(self, direction: Direction) -> None:
        """Wait while the direction is stalled."""
        await self._open[direction].wait()

    def tears_now(self, direction: Direction, size: int) -> bool:
        """Whether this chunk is a batch to tear; counts it."""
        due = self.tears > 0 and direction == self.tear[0] and size >= BATCH_BYTES
        self.tears -= due
        return due

    def held_now(self, direction: Direction, data: bytes) -> Hold | None:
        """What holds this chunk, if anything does."""
        return self.hold if self.hold is not None and direction == "up" and self.hold.takes(data) else None


Apart = dict[bytes, Link]
"""What is wrong with the ways of single clients, by what the first bytes of each hold: each can be stalled alone."""


@dataclass
class _Way:
    """One connection's: what is wrong with it as with all others, and by itself."""

    link: Link
    apart: Link

    async def passes(self, direction: Direction) -> None:
        await self.link.passes(direction)
        await self.apart.passes(direction)


class Proxy:
    """Listens on a port of its own, also while its server is away, unless it is told to refuse as that would."""

    def __init__(
        self, link: Link, server_port: Callable[[], int], mark: bytes | None = None, apart: Apart | None = None
    ) -> None:
        self.port = free_port()
        self._link = link
        self._apart = {} if apart is None else apart
        self._sound = Link()
        self._server_port = server_port
        self._mark = mark
        self._listener: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def listen(self) -> None:
        """Take connections; fine if it does."""
        if self._listener is None:
            self._listener = await asyncio.start_server(self._accepted, HOST, self.port)

    def refuse(self) -> None:
        """Take no more connections, as a machine without that server; the present ones end with the server."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    async def close(self) -> None:
        self.refuse()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        release_port(self.port)

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer), name="proxied connection")
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers = [writer]
        with contextlib.suppress(OSError):
            try:
                server_reader, server_writer = await asyncio.open_connection(HOST, self._server_port())
                writers.append(server_writer)
                first = b"" if self._mark is None else await reader.read(CHUNK)
                way = _Way(self._link if self._mark is None or self._mark in first else self._sound, self._sound)
                pumps = [
                    asyncio.create_task(self._pump(reader, server_writer, writer, way, "up", first), name="proxy up"),
                    asyncio.create_task(
                        self._pump(server_reader, writer, server_writer, way, "down"), name="proxy down"
                    ),
                ]
                try:
                    # Neither protocol closes one direction alone: the end of one is the end of both.
                    await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for pump in pumps:
                        pump.cancel()
                    await asyncio.gather(*pumps, return_exceptions=True)
            finally:
                for each in writers:
                    each.transport.abort()

    def _client(self, first: bytes) -> Link:
        """What is wrong with the way of the client that begins like this, by itself."""
        return next((link for mark, link in self._apart.items() if mark in first), self._sound)

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        back: asyncio.StreamWriter,
        way: _Way,
        direction: Direction,
        first: bytes = b"",
    ) -> None:
        link = way.link
        under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(AHEAD)
        now = asyncio.get_running_loop().time

        async def take() -> None:
            data = first or await reader.read(CHUNK)
            if direction == "up":  # a NATS server speaks first; from here on its client is known
                way.apart = self._client(data)
            while data:
                await under_way.put((now() + link.delay, data))
                data = await reader.read(CHUNK)
            await under_way.put((now() + link.delay, b""))

        async def give() -> None:
            while True:
                due, data = await under_way.get()
                await asyncio.sleep(due - now())
                await way.passes(direction)
                if not data:
                    return
                if link.tears_now(direction, len(data)):
                    writer.write(data[: int(len(data) * link.tear[1])])
                    await writer.drain()
                    reset(writer)
                    reset(back)
                    return
                if (hold := link.held_now(direction, data)) is not None:
                    half = len(data) // 2
                    writer.write(data[:half])
                    data = data[half:]
                    await writer.drain()
                    await hold.freed()
                    if hold.reset:
                        reset(writer)
                        reset(back)
                        return
                if link.rate is not None:
                    await asyncio.sleep(len(data) / link.rate)
                writer.write(data)
                await writer.drain()

        taking = asyncio.create_task(take(), name="proxy take")
        try:
            await give()
        finally:
            taking.cancel()
            await asyncio.gather(taking, return_exceptions=True)


def reset(writer: asyncio.StreamWriter) -> None:
    """Make the coming close a reset (RST) rather than an orderly end."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
