"""A run: a schedule drawn from the seed, each fault struck and recovered from under load, the verdict at the end."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

from tests.faults.catalogue import FAULTS, Fault
from tests.faults.verdict import Outcome, table, verify
from tests.faults.world import RECOVERY_SECONDS, World
from tests.service import until

CALM_SECONDS = (0.3, 1.5)
"""The time between two faults is drawn from this range."""
STRUCK_SECONDS = 1.5
"""A fault shows in the lag by then, or not at all."""


@dataclass(frozen=True)
class Plan:
    """What is asked for. Where neither minutes nor changes are given, each fault comes once."""

    seed: int
    names: Sequence[str] = tuple(FAULTS)
    minutes: float | None = None
    changes: int | None = None

    def rounds(self) -> Iterator[tuple[Fault, random.Random]]:
        """Round after round of all faults, each round in an order of its own, each fault with its own chances."""
        number = 0
        while number == 0 or self.minutes is not None or self.changes is not None:
            order = list(self.names)
            random.Random(f"{self.seed}/{number}").shuffle(order)
            for name in order:
                yield FAULTS[name], random.Random(f"{self.seed}/{number}/{name}")
            number += 1


async def run(plan: Plan) -> int:
    """Do it, and print what happens. Returns the exit code: 1 where anything was found."""
    print(f"seed {plan.seed}, {len(plan.names)} faults", flush=True)
    async with World() as world:
        outcomes = await _schedule(world, plan)
        await world.finish()
        verdicts = await verify(world)
        problems = [*world.problems, *(f"{each.watcher}: {text}" for each in verdicts for text in each.problems)]
        print(table(outcomes, verdicts, world.writers.total, world.writers.uncertain))
        if problems:
            world.keep()
    for problem in problems:
        print(f"WRONG: {problem}")
    print(f"seed {plan.seed}: {'WRONG' if problems else 'OK'}", flush=True)
    return 1 if problems else 0


async def _schedule(world: World, plan: Plan) -> list[Outcome]:
    outcomes: list[Outcome] = []
    writing = asyncio.create_task(world.writers.run(str(plan.seed)), name="writers")
    async with AsyncExitStack() as stack:
        stack.push_async_callback(_ended, writing)
        await until(lambda: world.lag.steady, "changes flow", within=RECOVERY_SECONDS)
        began = time.monotonic()
        for fault, draw in plan.rounds():
            outcomes.append(await _strike(world, fault, draw, began))
            print(outcomes[-1], flush=True)
            over = plan.minutes is not None and time.monotonic() - began > plan.minutes * 60
            if over or writing.done() or (plan.changes is not None and world.writers.total >= plan.changes):
                break
    return outcomes


async def _strike(world: World, fault: Fault, draw: random.Random, began: float) -> Outcome:
    await asyncio.sleep(draw.uniform(*CALM_SECONDS))
    struck = time.monotonic()
    async with fault.strike(world, draw) as victim:
        if fault.hold is not None:
            await asyncio.sleep(fault.hold)  # the scenario itself
        else:
            await asyncio.sleep(STRUCK_SECONDS)
            try:
                await until(lambda: world.lag.steady, "", within=RECOVERY_SECONDS)
            except AssertionError:  # it goes on: what the streams hold is the greater question
                world.problems.append(f"{fault.name}: no changes without {victim}; {await world.states()}")
    await world.back()
    released = time.monotonic()
    await asyncio.sleep(max(0.0, released + STRUCK_SECONDS - time.monotonic()))
    await world.recovered()
    recovery, idle = (max(0.0, moment - struck) for moment in (world.lag.late_at, world.lag.idle_at))
    return Outcome(fault.name, victim, struck - began, released - struck, idle, recovery)


async def _ended(task: asyncio.Task[None]) -> None:
    """End the writers; an error of theirs is one of the run."""
    if not task.done():
        task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        if not task.cancelled():
            raise
