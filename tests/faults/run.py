"""A run: a schedule drawn from the seed, each fault struck and recovered from under load, the verdict at the end."""

from __future__ import annotations

import asyncio
import json
import platform
import random
import subprocess
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from app.devservers.servers import MongoServer, NatsServer, find_program
from tests.faults.catalogue import AWAY_SECONDS, FAULTS, Fault
from tests.faults.crowd import Crowd
from tests.faults.crowd_verdict import verify as verify_crowd
from tests.faults.forms import ALL, CROWD, INSTANCES, SNAPSHOTS
from tests.faults.instances import Instances
from tests.faults.lag import GOOD_SECONDS
from tests.faults.report import Outcome, Run
from tests.faults.snapshots import Snapshots
from tests.faults.snapshots_verdict import verify as verify_snapshots
from tests.faults.testbed import RECOVERY_SECONDS, SILENCE_SECONDS, Load, Testbed
from tests.faults.verdict import Verdict, verify
from tests.faults.writers import Writers

CALM_SECONDS = (0.3, 1.5)
"""The time between two faults is drawn from this range."""
STRUCK_SECONDS = 1.5
"""A fault shows in the lag by then, or not at all."""
STOP_SECONDS = 60
"""The writers end with the calls that are under way."""
LONG_MINUTES = 10
"""A run of fewer minutes has no time to freeze processes for long."""
PAIRED = 0.6
"""How likely a fault comes together with another, where both can."""


@dataclass(frozen=True)
class Step:
    """One fault, or two at once, with how long it lasts (as a fault's `hold`) and chances of its own."""

    faults: Sequence[Fault]
    hold: float | None
    draw: random.Random

    @property
    def name(self) -> str:
        return " + ".join(fault.name for fault in self.faults)


@dataclass(frozen=True)
class Plan:
    """What is asked for: round after round, for so many minutes, or else until there were so many faults and changes.
    Where nothing of this is given, each fault comes once."""

    seed: int
    names: Sequence[str] = tuple(FAULTS)
    """All of one form."""
    minutes: float | None = None
    changes: int | None = None
    faults: int | None = None
    load: Load | None = None
    """The form's own where none is given."""
    patience: float = RECOVERY_SECONDS
    good: float = GOOD_SECONDS
    """The lag in seconds below which changes flow again."""
    silence: float = SILENCE_SECONDS
    """The standby's patience."""
    mongod: Path | None = None
    """Another program than the one of all other tests."""
    json: Path | None = None
    """Where the result is written."""
    command: str = ""
    """What repeats it."""

    @property
    def form(self) -> type[Testbed]:
        """What these faults strike."""
        name = self.names[0]
        forms: dict[type[Testbed], Collection[str]] = {Crowd: CROWD, Instances: INSTANCES, Snapshots: SNAPSHOTS}
        return next((form for form, faults in forms.items() if name in faults), Testbed)

    @property
    def bounded(self) -> bool:
        return not (self.minutes is None and self.changes is None and self.faults is None)

    def steps(self) -> Iterator[Step]:
        """Round after round of all faults, each in an order of its own: in the first one by one, then some in pairs.

        The first round begins with those that no run should be without, and has another one after every two."""
        number = 0
        while number == 0 or self.bounded:
            left = [ALL[name] for name in self.names]
            draw = random.Random(f"{self.seed}/{number}")
            draw.shuffle(left)
            if number == 0:
                left = _in_turn(left)
            while left:
                faults = [left.pop(0)]
                if number and faults[0].side and draw.random() < PAIRED:
                    partner = next((one for one in left if one.side and one.side != faults[0].side), None)
                    if partner is not None:
                        left.remove(partner)
                        faults.append(partner)
                long = number == 0 and (self.minutes is None or self.minutes >= LONG_MINUTES)
                yield _step(faults, random.Random(f"{self.seed}/{number}/{faults[0].name}"), long=long)
            number += 1

    def over(self, *, minutes: float, changes: int, faults: int) -> bool:
        """Whether what was asked for has been done."""
        if self.minutes is not None:
            return minutes >= self.minutes
        return self.bounded and changes >= (self.changes or 0) and faults >= (self.faults or 0)


def _in_turn(faults: Sequence[Fault]) -> list[Fault]:
    """The faults in their order, but two for every run and another one in turn, as long as there are any."""
    first = [fault for fault in faults if fault.always]
    others = [fault for fault in faults if not fault.always]
    turns = zip_longest(first[::2], first[1::2], others)
    return [fault for turn in turns for fault in turn if fault is not None]


def _step(faults: Sequence[Fault], draw: random.Random, *, long: bool) -> Step:
    if len(faults) > 1:  # nothing can be said of when changes flow past both
        return Step(faults, max(fault.hold if fault.hold is not None else AWAY_SECONDS for fault in faults), draw)
    (fault,) = faults
    return Step(faults, fault.first if long and fault.first is not None else fault.hold, draw)


async def run(plan: Plan) -> int:
    """Do it, and print what happens. Returns the exit code: 1 where anything was found."""
    print(f"seed {plan.seed}, {len(plan.names)} kinds of fault", flush=True)
    async with plan.form(
        plan.load, patience=plan.patience, good=plan.good, silence=plan.silence, mongod=plan.mongod
    ) as testbed:
        began = time.monotonic()
        outcomes = await _schedule(testbed, plan)
        await testbed.finish()
        minutes = (time.monotonic() - began) / 60
        verdicts = await _judged(testbed)
        problems = [*testbed.problems, *(f"{each.watcher}: {text}" for each in verdicts for text in each.problems)]
        if problems:
            testbed.keep()
    found = Run(
        seed=plan.seed,
        command=plan.command,
        minutes=minutes,
        versions=_versions(plan.mongod),
        outcomes=outcomes,
        verdicts=verdicts,
        certain=testbed.writers.total,
        uncertain=testbed.writers.uncertain,
        problems=problems,
        modes={name: dict(seen) for name, seen in testbed.modes.items()},
        taken_back=testbed.taken_back,
    )
    print(found.text())
    if plan.json is not None:
        plan.json.write_text(json.dumps(found.as_json(), indent=1))
    for problem in problems:
        print(f"WRONG: {problem}")
    print(f"seed {plan.seed}: {'WRONG' if problems else 'OK'}", flush=True)
    return 1 if problems else 0


async def _judged(testbed: Testbed) -> list[Verdict]:
    match testbed:
        case Crowd():
            return await verify_crowd(testbed)
        case Snapshots():
            return await verify_snapshots(testbed)
    return await verify(testbed)


async def _schedule(testbed: Testbed, plan: Plan) -> list[Outcome]:
    outcomes: list[Outcome] = []
    writing = asyncio.create_task(testbed.writers.run(str(plan.seed)), name="writers")
    async with AsyncExitStack() as stack:
        stack.push_async_callback(_ended, testbed.writers, writing)
        await testbed.recovered("at the beginning")
        await testbed.note_modes()
        began = time.monotonic()
        struck = 0
        for step in plan.steps():
            try:
                outcomes.append(await _strike(testbed, step, began))
            except AssertionError as error:  # the verdict is the greater question
                testbed.problems.append(f"{step.name}: {error}")
                await testbed.repair()
                break
            print(outcomes[-1], flush=True)
            struck += len(step.faults)
            minutes = (time.monotonic() - began) / 60
            if writing.done() or plan.over(minutes=minutes, changes=testbed.writers.total, faults=struck):
                break
    return outcomes


async def _strike(testbed: Testbed, step: Step, began: float) -> Outcome:
    await asyncio.sleep(step.draw.uniform(*CALM_SECONDS))
    struck = time.monotonic()
    async with AsyncExitStack() as stack:
        victims = [await stack.enter_async_context(fault.strike(testbed, step.draw)) for fault in step.faults]
        if step.hold is not None:
            await asyncio.sleep(step.hold)  # the scenario itself
        else:
            await asyncio.sleep(STRUCK_SECONDS)
            await testbed.recovered(f"without {victims[0]}")
    lifted = time.monotonic()
    await testbed.back()
    whole = time.monotonic()
    await asyncio.sleep(max(0.0, lifted + STRUCK_SECONDS - time.monotonic()))
    await testbed.recovered(f"after {step.name}")
    await testbed.settled(f"after {step.name}")
    late, idle = (max(0.0, moment - struck) for moment in (testbed.lag.late_at, testbed.lag.idle_at))
    took = time.monotonic() - struck
    await testbed.note_modes()
    return Outcome(step.name, "; ".join(victims), struck - began, lifted - struck, whole - struck, idle, late, took)


async def _ended(writers: Writers, writing: asyncio.Task[None]) -> None:
    """End the writers; an error of theirs is one of the run."""
    writers.stopped = True
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await asyncio.shield(writing)
    except TimeoutError:
        writing.cancel()
        raise AssertionError("the writers do not end") from None


def _versions(other: Path | None) -> str:
    """What it ran on."""
    told = [
        subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout.split()
        for binary in (other or find_program(MongoServer), find_program(NatsServer))
    ]
    mongod, nats_server = told[0][2].strip("v"), told[1][-1].strip("v")
    return f"mongod {mongod}, nats-server {nats_server}, Python {platform.python_version()}"
