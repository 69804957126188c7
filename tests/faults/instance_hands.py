"""What happens to the three instances that share watchers: they die, freeze, leave, join, and are cut off alone."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

from tests.faults import middle
from tests.faults.crowd_hands import SOME
from tests.faults.hands import asked
from tests.faults.instances import Instances
from tests.faults.strikes import Strike, of
from tests.faults.testbed import mark_of, stream_of
from tests.service import Service

AROUND = (3.0, 9.0)
"""For how many seconds an instance is frozen: before, about and after the moment at which others take it for gone."""


async def _owner(testbed: Instances, draw: random.Random) -> Service:
    """An instance that runs some watcher."""
    running = await testbed.running()
    return draw.choice([service for service in testbed.services if running.get(service)] or testbed.services)


@of(Instances)
@asynccontextmanager
async def killed(testbed: Instances, draw: random.Random) -> AsyncIterator[str]:
    """One is killed, and comes back once the others have taken over."""
    victim = await _owner(testbed, draw)
    victim.kill()
    await testbed.replaced(victim)
    yield victim.name
    await victim.start()


@of(Instances)
@asynccontextmanager
async def two_killed(testbed: Instances, draw: random.Random) -> AsyncIterator[str]:
    """Two of three are killed at once, and come back once the third has taken over."""
    victims = draw.sample(testbed.services, 2)
    for victim in victims:
        victim.kill()
    await testbed.replaced(victims[0])
    yield ", ".join(victim.name for victim in victims)
    await asyncio.gather(*(victim.start() for victim in victims))


@of(Instances)
@asynccontextmanager
async def left(testbed: Instances, draw: random.Random) -> AsyncIterator[str]:
    """One leaves (SIGTERM), and joins again later."""
    victim = await _owner(testbed, draw)
    await victim.terminate()
    await testbed.replaced(victim)
    yield victim.name
    await victim.start()
    await testbed.balanced()


@of(Instances)
@asynccontextmanager
async def restarted_at_once(testbed: Instances, draw: random.Random) -> AsyncIterator[str]:
    """One is killed or ended, and started at once."""
    victim, killed = await _owner(testbed, draw), draw.random() < 0.5
    if killed:
        victim.kill()
    else:
        await victim.terminate()
    await victim.start()
    yield f"{victim.name}, {'killed' if killed else 'ended'}"


@of(Instances)
@asynccontextmanager
async def rolling(testbed: Instances, draw: random.Random) -> AsyncIterator[str]:
    """All are restarted, one after the other, as a rolling update does."""
    victims = draw.sample(testbed.services, len(testbed.services))
    for victim in victims:
        await victim.terminate()
        await victim.start()
        await testbed.takes(victim)
    yield ", ".join(victim.name for victim in victims)


@of(Instances)
@asynccontextmanager
async def frozen(testbed: Instances, draw: random.Random) -> AsyncIterator[str]:
    """One is frozen for about as long as the others wait for it."""
    victim = await _owner(testbed, draw)
    victim.freeze()
    await asyncio.sleep(draw.uniform(*AROUND))  # the scenario itself
    yield victim.name
    victim.thaw()


def zombie(name: str) -> Strike:
    """The instance that runs this watcher is frozen in the middle of a batch until the others have taken over and
    published; then the rest of the batch arrives, and it is thawed."""

    @of(Instances)
    @asynccontextmanager
    async def strike(testbed: Instances, draw: random.Random) -> AsyncIterator[str]:
        async with middle.in_the_middle(testbed, name, draw):
            victim = await testbed.publisher(name)
            victim.freeze()
            await testbed.replaced(victim)
            await testbed.taken_over()
            await asyncio.sleep(middle.FORGOTTEN_SECONDS)
        victim.thaw()
        yield f"{victim.name} in {stream_of(name)}"

    return strike


def cut(side: Literal["mongo", "nats"]) -> Strike:
    """One instance alone cannot reach the servers of one kind."""

    @of(Instances)
    @asynccontextmanager
    async def strike(testbed: Instances, draw: random.Random) -> AsyncIterator[str]:
        victim = await _owner(testbed, draw)
        link = (testbed.mongo if side == "mongo" else testbed.nats).apart[mark_of(victim.name).encode()]
        link.stall("up", "down")
        yield f"{victim.name} to {side}"
        link.heal()

    return strike


@of(Instances)
@asynccontextmanager
async def fourth(testbed: Instances, draw: random.Random) -> AsyncIterator[str]:
    """A fourth joins, gets its share, and leaves or is killed."""
    (guest,) = testbed.visiting
    await guest.start()
    await testbed.balanced()
    yield guest.name
    if draw.random() < 0.5:
        guest.kill()
    else:
        await guest.terminate()
    await testbed.replaced(guest)


@of(Instances)
@asynccontextmanager
async def paused(testbed: Instances, draw: random.Random) -> AsyncIterator[str]:
    """Some watchers are paused through any instance, while one of those that run them dies; and resumed."""
    names = testbed.some(draw, SOME)
    for name in names:
        await asked(testbed, "PUT", f"/watchers/{name}/pause", None, 202)
    testbed.resting = set(names)
    testbed.lag.away = {stream_of(name) for name in names}
    victim = await _owner(testbed, draw)
    victim.kill()
    for name in names:
        await testbed.writers.pour(name, draw.randint(1, 200))
    await testbed.replaced(victim)
    yield f"{', '.join(names)} and {victim.name}"
    for name in names:
        await asked(testbed, "PUT", f"/watchers/{name}/resume", None, 202)
    testbed.resting = set()
    await victim.start()
    await testbed.replaced(victim)
    testbed.lag.away = set()


@of(Instances)
@asynccontextmanager
async def visited(testbed: Instances, draw: random.Random) -> AsyncIterator[str]:
    """Watchers are added through any instance, one of which dies, and one of the watchers is removed."""
    places = [draw.choice(testbed.shared_ones), draw.choice(testbed.strangers)]
    visits = [await testbed.visit(place) for place in places]
    victim = await _owner(testbed, draw)
    victim.kill()
    await testbed.replaced(victim)
    yield f"{', '.join(visit.name for visit in visits)} and {victim.name}"
    leaves = draw.choice(visits)
    await testbed.end_visit(leaves)
    await asked(testbed, "DELETE", f"/watchers/{leaves.name}", None, 204, 404)
    leaves.removed = True
    await victim.start()
