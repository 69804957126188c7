"""Which watchers the demo has: names, collections, streams, shares of the traffic, and the parts that some play.

The same number gives the same watchers, and a smaller number gives the first of them: `billing-invoices` is the one
that fails in each demo with two watchers or more.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

MIB = 1 << 20
_STREAM_BYTES = 512 * MIB
"""What all streams together may hold; each is bounded by its part of it, so that a long demo does not fill a disk."""
_LEAST, _MOST = 2 * MIB, 32 * MIB
SNAPSHOT_BYTES = 64 * MIB
SNAPSHOT_DOCUMENTS = 20_000
COLLECTIONS = {
    "shop": "orders carts customers products prices coupons reviews wishlists returns stock",
    "billing": "invoices payments refunds subscriptions taxes ledgers payouts disputes credits plans",
    "logistics": "shipments parcels routes vehicles drivers warehouses pallets customs labels scans",
    "support": "tickets chats calls agents macros surveys articles escalations sessions feedback",
    "analytics": "clicks visits funnels cohorts campaigns experiments imports exports reports alerts",
}


class Part(Enum):
    """What becomes of a watcher in the demo."""

    ORDINARY = "ordinary"
    FAILS = "fails"
    """Its stream is deleted and created again: it is FAILED until a person repairs it."""
    PAUSED = "paused"
    LETTER = "letter"
    """One of its documents is too large for a message, and becomes a dead letter."""
    SNAPSHOT = "snapshot"
    """Its documents are published now and then."""


_PARTS = {1: Part.FAILS, 2: Part.PAUSED, 3: Part.LETTER, 4: Part.SNAPSHOT}


@dataclass(frozen=True, slots=True)
class FleetWatcher:
    """One watcher of the demo, and its part of all writes."""

    database: str
    collection: str
    share: float
    max_bytes: int
    part: Part = Part.ORDINARY

    @property
    def name(self) -> str:
        return f"{self.database}-{self.collection}"

    @property
    def stream(self) -> str:
        return f"{self.database}_{self.collection}".upper()

    def definition(self) -> dict[str, Any]:
        """The watcher as the HTTP interface takes it."""
        sink: dict[str, Any] = {"stream": self.stream, "max_bytes": self.max_bytes}
        more: dict[str, Any] = {}
        if self.part is Part.LETTER:
            sink["oversize"] = "dead_letter"
        if self.part is Part.SNAPSHOT:
            more["snapshot"] = "initial"
        return {
            "name": self.name,
            "source": {"database": self.database, "collection": self.collection},
            "sink": sink,
            **more,
        }


def watchers(count: int) -> list[FleetWatcher]:
    """The watchers of a demo of so many, the busiest first: each of the next ones gets less of the traffic."""
    shares = [1 / (1 + place) for place in range(count)]
    whole = sum(shares)
    room = min(_MOST, max(_LEAST, _STREAM_BYTES // count))
    found = []
    for place, share in enumerate(shares):
        database = list(COLLECTIONS)[place % len(COLLECTIONS)]
        turn, which = divmod(place // len(COLLECTIONS), len(COLLECTIONS[database].split()))
        collection = COLLECTIONS[database].split()[which] + (f"_{turn + 1}" if turn else "")
        part = _PARTS.get(place, Part.ORDINARY)
        found.append(
            FleetWatcher(database, collection, share / whole, SNAPSHOT_BYTES if part is Part.SNAPSHOT else room, part)
        )
    return found


def one(watchers: Sequence[FleetWatcher], part: Part) -> FleetWatcher | None:
    """The watcher that plays a part; None where the demo is too small for it."""
    return next((each for each in watchers if each.part is part), None)


def databases(watchers: Sequence[FleetWatcher]) -> dict[str, int]:
    """How many watchers each database has, in the order of the watchers."""
    return dict(Counter(each.database for each in watchers))
