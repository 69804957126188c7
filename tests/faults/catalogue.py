"""The faults by name: whom they strike, what they do, and how long they last."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal

from tests.faults import hands, middle
from tests.faults.cluster import Node
from tests.faults.proxy import Direction, Link
from tests.faults.strikes import Strike
from tests.faults.testbed import (
    ANEW_BY_HAND,
    ANEW_WITH_GAP,
    BATCHES,
    FAST,
    Testbed,
    stream_of,
)
from tests.service import Service, until

AWAY_SECONDS = 1.5
"""Longer than the duplicate window, so that a server or service that comes back finds no ids that are still known."""
OF_ONE = ("restarted", "frozen", "cut")
"""What happens to an instance alone, and may come together with a fault of a server."""
FROZEN_SECONDS = 12.0
"""Longer than every time-out of the service, and than its standby's patience (10 s)."""
LONG_FROZEN_SECONDS = 30.0
"""How long a process is frozen the first time in a run that is not short."""
DEGRADED_SECONDS = 6.0
"""How long a link is slow, which no time-out ends."""
REFUSED_SECONDS = 5.0
"""How long a stream takes nothing."""
PAUSED_SECONDS = 3.0
DELAY_SECONDS = 0.5
BYTES_PER_SECOND = 50_000
TEARS = 5

CROWD_PREFIX = "crowd-"
INSTANCES_PREFIX = "instances-"
SNAPSHOTS_PREFIX = "snapshots-"
ALWAYS = (
    "nats-kill-leader",
    "nats-kill-only",
    "crowd-paused",
    "crowd-let-go",
    "crowd-strangers",
    "crowd-visited",
    "instances-zombie-r1",
    "instances-zombie-r3",
    "instances-killed",
    "instances-cut-from-mongo",
    "instances-cut-from-nats",
    "snapshots-service-kill-all",
    "snapshots-zombie",
    "snapshots-batch-zombie-r1",
    "snapshots-batch-zombie-r3",
    "snapshots-killed-after-plan",
    "snapshots-killed-within-rows",
    "snapshots-stopped-after-plan",
    "snapshots-stopped-within-rows",
)

Victim = Service | Node[Any]
Pick = Callable[[Testbed, random.Random], Awaitable[Sequence[Victim]]]
Action = Literal["kill", "term", "freeze"]


@dataclass(frozen=True)
class Fault:
    """`strike` harms on entering, gives the victim's name, and heals on leaving; what is broken off heals nothing.

    `hold` is how long it lasts, in seconds; None: until changes flow all the same, past the victim. `first`, where it
    is given, is how long the first time in a run that is not short.
    """

    name: str
    strike: Strike
    hold: float | None
    first: float | None = None

    @property
    def always(self) -> bool:
        """Whether it is for every run, however short: what strikes batches under way, the two kinds of leaders,
        single watchers of a crowd, and single instances of three."""
        return self.name.startswith("batch-") or self.name in ALWAYS

    @property
    def side(self) -> str | None:
        """Whom it strikes, where it may strike while another fault lasts that strikes somebody else."""
        name = self.name
        for prefix in (CROWD_PREFIX, INSTANCES_PREFIX, SNAPSHOTS_PREFIX):
            name = name.removeprefix(prefix)
        kind, _, rest = name.partition("-")
        if kind in OF_ONE:
            return "service"
        if self.name.endswith(("-reset", "-no-ack")):  # these wait for batches
            return None
        return rest.partition("-")[0] if kind == "link" else kind if kind in ("service", "mongo", "nats") else None


def _harm(action: Action, pick: Pick) -> Strike:
    @asynccontextmanager
    async def strike(testbed: Testbed, draw: random.Random) -> AsyncIterator[str]:
        victims = await pick(testbed, draw)
        # Streams whose only server is struck are away; what all others do is judged without them.
        away = await testbed.nats.only_on(victims, [stream_of(name) for name in testbed.names])
        if action == "term":
            await asyncio.gather(*(victim.terminate() for victim in victims))
        for victim in victims if action != "term" else ():
            (victim.kill if action == "kill" else victim.freeze)()
        testbed.lag.away = away
        yield ", ".join(victim.name for victim in victims)
        testbed.lag.away = set()
        if action == "freeze":
            for victim in victims:
                victim.thaw()
        else:
            await asyncio.gather(*(victim.start() for victim in victims))

    return strike


async def _active(testbed: Testbed, _: random.Random) -> Sequence[Victim]:
    return [await testbed.active()]


async def _standby(testbed: Testbed, _: random.Random) -> Sequence[Victim]:
    active = await testbed.active()
    return [service for service in testbed.services if service is not active]


async def _services(testbed: Testbed, _: random.Random) -> Sequence[Victim]:
    return testbed.services


async def _primary(testbed: Testbed, _: random.Random) -> Sequence[Victim]:
    return [await testbed.mongo.primary()]


async def _secondary(testbed: Testbed, draw: random.Random) -> Sequence[Victim]:
    primary = await testbed.mongo.primary()
    return [draw.choice([node for node in testbed.mongo.nodes if node is not primary])]


async def _mongods(testbed: Testbed, _: random.Random) -> Sequence[Victim]:
    return testbed.mongo.nodes


async def _leader(testbed: Testbed, draw: random.Random) -> Sequence[Victim]:
    return [await testbed.nats.leader(stream_of(draw.choice(testbed.replicated)))]


async def _only(testbed: Testbed, draw: random.Random) -> Sequence[Victim]:
    return [await testbed.nats.leader(stream_of(draw.choice(testbed.one_replica)))]


async def _follower(testbed: Testbed, draw: random.Random) -> Sequence[Victim]:
    leader = await testbed.nats.leader(stream_of(testbed.replicated[0]))
    return [draw.choice([node for node in testbed.nats.nodes if node is not leader])]


async def _nats_servers(testbed: Testbed, _: random.Random) -> Sequence[Victim]:
    return testbed.nats.nodes


@asynccontextmanager
async def _mongo_stepdown(testbed: Testbed, _: random.Random) -> AsyncIterator[str]:
    yield await testbed.mongo.step_down()


@asynccontextmanager
async def _nats_stepdown(testbed: Testbed, draw: random.Random) -> AsyncIterator[str]:
    stream = stream_of(draw.choice(testbed.replicated))
    yield f"{await testbed.nats.step_down(stream)} of {stream}"


@asynccontextmanager
async def _zombie(testbed: Testbed, _: random.Random) -> AsyncIterator[str]:
    """The busiest service is frozen until others have taken every watcher over, then thawed, its batches in hand."""
    active = await testbed.active()
    active.freeze()
    frozen = time.time()
    await until(testbed.all_run, "the others have taken over", within=60)
    await until(lambda: testbed.lag.reached > frozen, "the others publish", within=60)
    yield active.name
    active.thaw()


def _link(side: Literal["mongo", "nats"], harm: Callable[[Link], None]) -> Strike:
    @asynccontextmanager
    async def strike(testbed: Testbed, _: random.Random) -> AsyncIterator[str]:
        link = (testbed.mongo if side == "mongo" else testbed.nats).link
        harm(link)
        yield f"Changewire to {side}"
        link.heal()

    return strike


def _torn(side: Literal["mongo", "nats"], direction: Direction, part: float) -> Strike:
    @asynccontextmanager
    async def strike(testbed: Testbed, _: random.Random) -> AsyncIterator[str]:
        link = (testbed.mongo if side == "mongo" else testbed.nats).link
        link.tear, link.tears = (direction, part), TEARS
        await until(lambda: link.tears == 0, f"{TEARS} batches are torn", within=60)
        yield f"{TEARS} batches"

    return strike


def _delayed(link: Link) -> None:
    link.delay = DELAY_SECONDS


def _slowed(link: Link) -> None:
    link.rate = BYTES_PER_SECOND


def _nodes(side: str, first: tuple[str, Pick], other: tuple[str, Pick], every: Pick) -> list[Fault]:
    picks = (first, other)
    return [
        *(
            Fault(f"{side}-{action}-{name}", _harm(action, pick), None)
            for action in ("kill", "term")
            for name, pick in picks
        ),
        *(
            Fault(f"{side}-freeze-{name}", _harm("freeze", pick), FROZEN_SECONDS, LONG_FROZEN_SECONDS)
            for name, pick in picks
        ),
        *(Fault(f"{side}-{action}-all", _harm(action, every), AWAY_SECONDS) for action in ("kill", "term")),
        Fault(f"{side}-freeze-all", _harm("freeze", every), FROZEN_SECONDS, LONG_FROZEN_SECONDS),
    ]


def _links(side: Literal["mongo", "nats"]) -> list[Fault]:
    return [
        Fault(f"link-{side}-cut", _link(side, lambda link: link.stall("up", "down")), FROZEN_SECONDS),
        Fault(f"link-{side}-only-down", _link(side, lambda link: link.stall("up")), FROZEN_SECONDS),
        Fault(f"link-{side}-only-up", _link(side, lambda link: link.stall("down")), FROZEN_SECONDS),
        Fault(f"link-{side}-delayed", _link(side, _delayed), DEGRADED_SECONDS),
        Fault(f"link-{side}-slowed", _link(side, _slowed), DEGRADED_SECONDS),
    ]


def _batches() -> list[Fault]:
    """In the middle of a batch: of a stream with one replica (`r1`) and of one with three (`r3`)."""
    kinds = (
        ("reset", middle.reset, 0.0),
        ("frozen", middle.frozen, FROZEN_SECONDS),
        ("zombie", middle.zombie, 0.0),
        ("foreign", middle.foreign, 0.0),
        ("full", middle.full, 0.0),
    )
    kept, recorded = (("r1", FAST), ("r3", BATCHES)), (("r1", ANEW_WITH_GAP), ("r3", ANEW_BY_HAND))
    return [
        *(Fault(f"batch-{kind}-{which}", strike(name), hold) for kind, strike, hold in kinds for which, name in kept),
        *(Fault(f"batch-purged-{which}", middle.purged(name), 0) for which, name in recorded),
        Fault("batch-switched-off", middle.switched_off, AWAY_SECONDS),
        Fault("batch-replicas", middle.replicated, AWAY_SECONDS),
    ]


FAULTS = {
    fault.name: fault
    for fault in [
        Fault("service-kill", _harm("kill", _active), AWAY_SECONDS),
        Fault("service-kill-for-long", _harm("kill", _active), None),
        Fault("service-kill-standby", _harm("kill", _standby), AWAY_SECONDS),
        Fault("service-kill-all", _harm("kill", _services), AWAY_SECONDS),
        Fault("service-term", _harm("term", _active), AWAY_SECONDS),
        Fault("service-term-all", _harm("term", _services), AWAY_SECONDS),
        Fault("service-freeze", _harm("freeze", _active), FROZEN_SECONDS, LONG_FROZEN_SECONDS),
        Fault("service-freeze-all", _harm("freeze", _services), FROZEN_SECONDS, LONG_FROZEN_SECONDS),
        *_nodes("mongo", ("primary", _primary), ("secondary", _secondary), _mongods),
        Fault("mongo-stepdown", _mongo_stepdown, 0),
        *_nodes("nats", ("leader", _leader), ("follower", _follower), _nats_servers),
        Fault("nats-kill-only", _harm("kill", _only), AWAY_SECONDS),
        Fault("nats-stepdown", _nats_stepdown, 0),
        *_links("mongo"),
        Fault("link-mongo-reset", _torn("mongo", "down", 0.5), 0),
        *_links("nats"),
        Fault("link-nats-reset", _torn("nats", "up", 0.5), 0),
        Fault("link-nats-no-ack", _torn("nats", "up", 1), 0),
        Fault("zombie", _zombie, 0),
        *_batches(),
        Fault("stream-full", hands.stream_full, REFUSED_SECONDS),
        Fault("stream-short", hands.stream_short, REFUSED_SECONDS),
        Fault("stream-purged", hands.stream_purged, 0),
        Fault("stream-recreated-with-gap", hands.stream_recreated_with_gap, AWAY_SECONDS),
        Fault("stream-recreated-by-hand", hands.stream_recreated_by_hand, AWAY_SECONDS),
        Fault("store-full", hands.store_full, REFUSED_SECONDS),
        Fault("collection-dropped", hands.collection_dropped, 0),
        Fault("collection-renamed", hands.collection_renamed, 0),
        Fault("database-dropped", hands.database_dropped, 0),
        Fault("images-switched", hands.images_switched, AWAY_SECONDS),
        Fault("checkpoints-dropped", hands.checkpoints_dropped, 0),
        Fault("checkpoints-dropped-while-away", hands.checkpoints_dropped_while_away, AWAY_SECONDS),
        Fault("registry-dropped", hands.registry_dropped, AWAY_SECONDS),
    ]
}
"""All of the form with a watcher for each way to publish. Of a link, `only-down` lets through what the servers say,
`only-up` what Changewire says."""
