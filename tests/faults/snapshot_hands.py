"""What happens to the services at chosen moments of a snapshot (`tests/traps.py`)."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

from tests.faults.snapshots import Snapshots
from tests.faults.strikes import Strike, of
from tests.service import Service, is_stopped, until
from tests.traps import Trap

MOMENTS = (
    "before-plan",
    "after-plan",
    "before-rows",
    "within-rows",
    "after-rows",
    "before-forgotten",
    "after-forgotten",
    "after-checkpoint",
)
NTH = range(1, 7)
"""The moment's first time, or a later one: several collections are read, and each in some chunks."""
SPRUNG_SECONDS = 60.0


async def _caught(
    testbed: Snapshots, moment: str, draw: random.Random, signal: Literal["KILL", "STOP"]
) -> tuple[Service, str]:
    """Start the services with a trap each, and return the one in which it springs first, and where."""
    trap = Trap(moment, draw.choice(NTH), signal)
    for service in testbed.services:
        service.kill()
        service.trap = trap
    for service in testbed.services:
        service.spawn()  # the trap may spring before it answers

    def victim() -> Service | None:
        sprung = (one for one in testbed.services if not one.running or is_stopped(one.pid))
        return next(sprung, None)

    found: Service = await until(victim, f"a trap springs {moment}", within=SPRUNG_SECONDS)
    return found, f"{found.name}, {trap}"


async def _afresh(service: Service) -> None:
    """Start a service without a trap."""
    service.kill()
    await service.start()


def killed(moment: str) -> Strike:
    """A service dies at this moment of a snapshot."""

    @of(Snapshots)
    @asynccontextmanager
    async def strike(testbed: Snapshots, draw: random.Random) -> AsyncIterator[str]:
        _, where = await _caught(testbed, moment, draw, "KILL")
        yield where
        for service in testbed.services:
            await _afresh(service)

    return strike


def stopped(moment: str) -> Strike:
    """A service is frozen at this moment of a snapshot until the other one goes on with it, and comes back then."""

    @of(Snapshots)
    @asynccontextmanager
    async def strike(testbed: Snapshots, draw: random.Random) -> AsyncIterator[str]:
        victim, where = await _caught(testbed, moment, draw, "STOP")
        for service in testbed.services:
            if service is not victim:
                await _afresh(service)
        await until(testbed.all_run, "the other has taken over", within=testbed.patience)
        await testbed.published()
        yield where
        victim.thaw()

    return strike
