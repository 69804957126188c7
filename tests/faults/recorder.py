"""What was ever delivered of a stream: a consumer that writes down every message, in order, once.

A stream that is purged, bounded or deleted does not show any more what it held. The recorder does: it consumes past the
proxies, from whichever server answers, and goes on behind the last message that it has whenever its consumer is gone.
What was destroyed before it came there shows as a jump of the stream's sequence. Each stream of the name is an
*incarnation* of its own, told by the time of its creation. Not its business: what should have been there (`ledger.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from tests.faults.cluster import NatsNode, accompanied, connected
from tests.faults.writers import LAST

FETCH = 500
FETCH_SECONDS = 1.0
QUIET = 3
"""After so many fetches without a message it is looked whether the consumer is still there."""
PAUSE_SECONDS = 0.3


@dataclass(frozen=True)
class Record:
    """One message. `change` is its operation, document and unique value; a gap's marker has none."""

    incarnation: int
    sequence: int
    token: str
    change: tuple[str, Any, Any] | None


class Recorder:
    """Records one stream, for as long as it is `recording`."""

    def __init__(self, nodes: Sequence[NatsNode], stream: str) -> None:
        self.records: list[Record] = []
        self.resets: dict[int, str] = {}
        """Incarnations that somebody has told the watcher to fill from a token on."""
        self.ended = False
        """Whether the collection's last document has come."""
        self.gone = False
        """Whether there is no stream, as far as the recorder has seen."""
        self._stream = stream
        self._nodes = nodes
        self._created: list[str] = []
        self._next = 1

    @property
    def incarnations(self) -> int:
        """How many streams of the name there were."""
        return len(self._created)

    def recording(self) -> AbstractAsyncContextManager[None]:
        """Record, for as long as the block lasts."""
        return accompanied(self._run())

    async def _run(self) -> None:
        while True:
            for node in self._nodes:
                with contextlib.suppress(OSError, nats.errors.Error, nats.js.errors.Error, TimeoutError):
                    async with connected(node) as client:
                        await self._consume(client)
                await asyncio.sleep(PAUSE_SECONDS)

    async def _consume(self, client: Client) -> None:
        """Record by one connection until it or the consumer is lost."""
        created = await self._look(client)
        if created is None:
            return
        wanted = {
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": self._next if self._created and created == self._created[-1] else 1,
            "ack_policy": "none",
            "mem_storage": True,
            "num_replicas": 1,
            "inactive_threshold": int(30e9),
        }
        body = {"stream_name": self._stream, "config": wanted}
        answer = await _ask(client, f"CONSUMER.CREATE.{self._stream}", body)
        if "error" in answer or await self._look(client) != created:
            return
        if not self._created or created != self._created[-1]:
            self._created.append(created)
            self._next = 1
        consumer = await client.jetstream().pull_subscribe_bind(consumer=answer["name"], stream=self._stream)
        quiet = 0
        while client.is_connected:
            try:
                messages = await consumer.fetch(FETCH, timeout=FETCH_SECONDS)
            except TimeoutError:
                quiet += 1
                if quiet % QUIET == 0 and "error" in await _ask(
                    client, f"CONSUMER.INFO.{self._stream}.{answer['name']}"
                ):
                    return
                continue
            quiet = 0
            for message in messages:
                self._take(message)

    async def _look(self, client: Client) -> str | None:
        """When the stream was created; None where there is none."""
        info = await _ask(client, f"STREAM.INFO.{self._stream}")
        if "error" in info:
            self.gone = self.gone or info["error"]["code"] == 404
            return None
        self.gone = False
        return str(info["created"])

    def _take(self, message: Msg) -> None:
        sequence = message.metadata.sequence.stream
        assert sequence >= self._next, f"{self._stream}: #{sequence} was delivered where #{self._next} was due"
        self._next = sequence + 1
        event: dict[str, Any] = json.loads(message.data)
        token = str((message.headers or {}).get("Nats-Msg-Id", "")).partition(":")[0]
        change = None if event["operationType"] == "gap" else change_of(event)
        self.records.append(Record(len(self._created) - 1, sequence, token, change))
        self.ended = self.ended or (change is not None and change[1] == LAST)


def change_of(event: dict[str, Any]) -> tuple[str, Any, Any]:
    """What tells a change from all others: operation, document, and the value that is unique (a delete has none)."""
    operation, n = event["operationType"], None
    if operation in ("insert", "replace"):
        n = event["fullDocument"]["n"]
    elif operation == "update":
        n = event["updateDescription"]["updatedFields"]["n"]
    return operation, event["documentKey"]["_id"], n


async def _ask(client: Client, endpoint: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    payload = b"" if body is None else json.dumps(body).encode()
    return dict(json.loads((await client.request(f"$JS.API.{endpoint}", payload, timeout=2)).data))
