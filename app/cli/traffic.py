"""The demo's traffic: a writer with made-up orders, a consumer that shows what arrives, and the comparison of the two.

Each write is numbered, and so is its change on the stream: that tells lost, doubled and reordered ones apart. Not its
business: servers, the service, the screen around it (`demo.py`).
"""

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

import nats
from nats.aio.client import Client as NatsClient
from nats.js.api import ConsumerConfig, DeliverPolicy
from pymongo.collection import Collection
from pymongo.errors import PyMongoError

from app.domain.plain import plain

DATABASE, COLLECTION, STREAM = "shop", "orders", "ORDERS"
LINES_PER_SECOND = 20
_CHUNK = 200
_REACHED = 0.9
"""The part of the rate that counts as having reached it."""
_TABLES = 12
_ITEMS = {"soup": 6.9, "bread": 2.5, "salad": 8.2, "tea": 3.0, "coffee": 3.4, "cake": 4.8}
_STEPS = {"new": "paid", "paid": "packed", "packed": "shipped", "shipped": "delivered"}

Orders = Collection[dict[str, Any]]


class Key(NamedTuple):
    """What tells one change from all others; `number` is None on a delete, of which a document has one only."""

    operation: str
    id: str
    number: int | None


@dataclass
class Order:
    """A document as far as the writer has to remember it."""

    id: str
    status: str = "new"


async def connected(nats_url: str) -> NatsClient:
    """Connect to NATS, and again for as long as it takes. Raises what nats-py raises where the first time fails."""
    return await nats.connect(nats_url.split(","), max_reconnect_attempts=-1, error_cb=_quiet)


async def _quiet(_error: Exception) -> None:
    """nats-py prints errors of its connection by itself; the service reports them already."""


def order(key: str, number: int) -> dict[str, Any]:
    """A made-up document: what a table of a restaurant orders."""
    item, price = random.choice(list(_ITEMS.items()))
    quantity = random.randint(1, 5)
    return {
        "_id": key,
        "table": random.randint(1, _TABLES),
        "item": item,
        "quantity": quantity,
        "total": round(quantity * price, 2),
        "status": "new",
        "number": number,
    }


class Writer:
    """One client that writes to a collection, one write after the other, so that their order is known.

    `document` makes a document of an id and a number; it has `status` "new", and the number as `number`. `threads` are
    those that writes block; by default asyncio's own."""

    def __init__(
        self,
        collection: Orders,
        run: str,
        rate: float,
        *,
        document: Callable[[str, int], dict[str, Any]] = order,
        threads: Executor | None = None,
    ) -> None:
        self.run = run
        self.rate = rate
        self.written: list[Key] = []
        self.uncertain: set[Key] = set()
        """Writes that ended in an error: each may or may not have happened."""
        self.error: str | None = None
        self.seconds = 0.0
        """How long it has been writing."""
        self._orders = collection
        self._document = document
        self._threads = threads
        self._open: list[Order] = []
        self._count = 0

    async def write_until(self, stop: asyncio.Event) -> None:
        """Write at the rate until `stop` is set."""
        loop = asyncio.get_running_loop()
        clock = loop.time
        begun, done = clock(), 0
        while not stop.is_set():
            due = int((clock() - begun) * self.rate) + 1 - done
            if due > 0:
                done += min(due, _CHUNK)
                await loop.run_in_executor(self._threads, self._write_some, min(due, _CHUNK), stop)
                self.seconds = clock() - begun
                continue
            wait = max(0.001, begun + done / self.rate - clock())
            try:
                await asyncio.wait_for(stop.wait(), wait)
            except TimeoutError:
                continue

    def _write_some(self, count: int, stop: asyncio.Event) -> None:
        for _ in range(count):
            if stop.is_set():  # of a thread's business with an event, only asking is safe
                return
            key, act = self._next()
            self.written.append(key)
            try:
                act()
            except PyMongoError as error:
                self.uncertain.add(key)
                self.error = str(error)
                if key.operation == "insert":  # an update of a document that may not exist may be no change
                    self._open = [each for each in self._open if each.id != key.id]
                time.sleep(0.5)  # in a thread of its own; the server is not well

    def _next(self) -> tuple[Key, Callable[[], object]]:
        """Choose a write: half of them insert, most others update, and the number of open orders stays bounded."""
        self._count += 1
        number, chance = self._count, random.random()
        if not self._open or (chance < 0.5 and len(self._open) < 100):
            new = Order(f"{self.run}-{number:05}")
            document = self._document(new.id, number)
            self._open.append(new)
            return Key("insert", new.id, number), lambda: self._orders.insert_one(document)
        old = random.choice(self._open)
        if chance < 0.85 and old.status in _STEPS:
            old.status = _STEPS[old.status]
            change = {"$set": {"status": old.status, "number": number}}
            return Key("update", old.id, number), lambda: self._orders.update_one({"_id": old.id}, change)
        self._open.remove(old)
        return Key("delete", old.id, None), lambda: self._orders.delete_one({"_id": old.id})


class Consumer:
    """A JetStream consumer that reads the stream from here on and shows each message as it is received."""

    def __init__(self, nats: NatsClient, run: str, show: Callable[[str], None]) -> None:
        self.received: list[Key] = []
        self.arrived = asyncio.Event()
        """Set with each message."""
        self._nats = nats
        self._prefix = f"{run}-"
        self._show = show
        self._last = 0
        self._budget = float(LINES_PER_SECOND)
        self._budget_at = time.monotonic()
        self._passed_over = 0

    async def start(self) -> None:
        """Begin after the stream's last message."""
        stream = self._nats.jetstream()
        self._last = (await stream.stream_info(STREAM)).state.last_seq
        config = ConsumerConfig(deliver_policy=DeliverPolicy.BY_START_SEQUENCE, opt_start_seq=self._last + 1)
        await stream.subscribe(
            f"{STREAM}.>",
            cb=self._receive,
            ordered_consumer=True,
            config=config,
            pending_msgs_limit=-1,
            pending_bytes_limit=-1,
        )

    async def _receive(self, message: Any) -> None:
        sequence = message.metadata.sequence.stream
        if sequence <= self._last:  # delivered again; on the stream it is one message
            return
        self._last = sequence
        self.arrived.set()
        event = json.loads(message.data)
        key = key_of(event)
        if key.id.startswith(self._prefix):
            self.received.append(key)
        if not self._may_show():
            self._passed_over += 1
            return
        self.show_passed_over()
        self._show(line(message.subject, sequence, event, time.time()))

    def show_passed_over(self) -> None:
        """Say how many messages were received and not shown since the last line."""
        if self._passed_over:
            self._show(f"  … {self._passed_over:,} more")
            self._passed_over = 0

    def _may_show(self) -> bool:
        """Nobody reads more than so many lines a second."""
        now = time.monotonic()
        self._budget = min(LINES_PER_SECOND, self._budget + (now - self._budget_at) * LINES_PER_SECOND)
        self._budget_at = now
        if self._budget < 1:
            return False
        self._budget -= 1
        return True


def key_of(event: dict[str, Any]) -> Key:
    """The key of a change, from its message's body."""
    operation = str(event["operationType"])
    number = None
    if operation == "insert":
        number = event["fullDocument"].get("number")
    elif operation == "update":
        number = event["updateDescription"]["updatedFields"].get("number")
    return Key(operation, str(event.get("documentKey", {}).get("_id")), number)


def line(subject: str, sequence: int, event: dict[str, Any], now: float) -> str:
    """A message in one line: subject, sequence, document, what happened, how long it took from MongoDB to here."""
    operation, document = event["operationType"], event.get("fullDocument") or {}
    what = {
        "delete": "closed",
        "update": f"now {event.get('updateDescription', {}).get('updatedFields', {}).get('status')}",
    }
    if operation == "insert":
        what["insert"] = (
            f"table {document.get('table')} orders {document.get('quantity')} × {document.get('item')}, "
            f"{document.get('total'):.2f}"
        )
    took = (now - datetime.fromisoformat(event["wallTime"]["$date"]).timestamp()) * 1000
    key = event.get("documentKey", {}).get("_id")
    return plain(f"  {subject:<15} #{sequence:<6} {key}  {what.get(operation, operation):<36} {max(took, 0):5.0f} ms")


def counted(number: int, thing: str) -> str:
    """The number with its thing, in the plural where that is due."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def totals(written: int, received: int) -> str:
    """What was written and what was received, in one phrase."""
    return f"{counted(written, 'write')}, {counted(received, 'message')}"


def on_their_way(written: Sequence[Key], received: Sequence[Key], uncertain: set[Key]) -> int:
    """How many writes have not come out yet."""
    return len(set(written) - uncertain - set(received))


def shortfall(written: int, seconds: float, rate: float) -> str | None:
    """A sentence where clearly fewer writes a second were made than were asked for."""
    if written >= _REACHED * rate * seconds:
        return None
    return f"this machine made {written / seconds:,.0f} writes a second instead of {rate:,g}"


@dataclass
class Verdict:
    """How what was received compares with what was written."""

    written: int
    received: int
    lost: list[Key] = field(default_factory=list)
    doubled: list[Key] = field(default_factory=list)
    unknown: list[Key] = field(default_factory=list)
    reordered: list[Key] = field(default_factory=list)

    @property
    def right(self) -> bool:
        return not (self.lost or self.doubled or self.unknown or self.reordered)

    def __str__(self) -> str:
        if self.right:
            return f"{totals(self.written, self.received)}: every one once, in order"
        said = [totals(self.written, self.received)]
        for name in ("lost", "doubled", "unknown", "reordered"):
            keys: list[Key] = getattr(self, name)
            if keys:
                some = ", ".join(f"{key.operation} {key.id}" for key in keys[:3])
                said.append(f"{len(keys):,} {name} ({some}{', …' if len(keys) > 3 else ''})")
        return "; ".join(said)


def compare(written: Sequence[Key], received: Sequence[Key], uncertain: set[Key] | None = None) -> Verdict:
    """Compare; an uncertain write may be missing."""
    counts = Counter(received)
    wanted = [key for key in written if key in counts or key not in (uncertain or set())]
    place = {key: index for index, key in enumerate(wanted)}
    verdict = Verdict(len(wanted), len(received))
    verdict.lost = [key for key in wanted if key not in counts]
    verdict.doubled = [key for key, count in counts.items() if count > 1]
    verdict.unknown = [key for key in counts if key not in place]
    reached = -1
    for key in dict.fromkeys(received):
        if key in place:
            if place[key] < reached:
                verdict.reordered.append(key)
            reached = max(reached, place[key])
    return verdict
