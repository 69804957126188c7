"""What the streams hold, by `changewire verify`: once against MongoDB's history, once against the writers' own list."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from app.cli.verification.findings import KINDS
from tests.faults.world import COLLECTIONS, World

VERIFY_SECONDS = 300


@dataclass
class Verdict:
    """One watcher's two comparisons. `problems`: that one could not be made, or is not complete."""

    watcher: str
    messages: int = 0
    compared: int = 0
    listed: int = 0
    """Writes of the list that were found."""
    wrong: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    problems: list[str] = field(default_factory=list)


async def verify(world: World) -> list[Verdict]:
    """Compare every watcher's stream; the services have ended."""
    return await asyncio.gather(*(_verify(world, name) for name in COLLECTIONS))


async def _verify(world: World, name: str) -> Verdict:
    path = world.folder / f"{name}.jsonl"
    world.writers.save(name, path)
    verdict = Verdict(name)
    history = await _report(world, verdict, name)
    listed = await _report(world, verdict, name, "--writes", str(path))
    verdict.messages = history.get("messages", 0)
    verdict.compared = history.get("compared", 0)
    verdict.listed = listed.get("compared", 0)
    for what in ("waiting", "foreign"):
        if history.get(what):
            verdict.problems.append(f"{history[what]} {what}")
    for report in (history, listed):
        if report.get("not_compared"):
            verdict.problems.append(f"not compared: {report['not_compared']}")
    if verdict.compared != verdict.messages:
        verdict.problems.append(f"{verdict.messages} messages, {verdict.compared} compared with MongoDB's history")
    for kind in KINDS:
        for report in (history, listed):
            found = report.get(kind, {"total": 0, "findings": []})
            verdict.wrong[kind] = max(verdict.wrong[kind], found["total"])
            verdict.problems += [f"{kind}: {one['what']} {one['token'] or ''}" for one in found["findings"][:5]]
    return verdict


async def _report(world: World, verdict: Verdict, *arguments: str) -> dict[str, Any]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "app", "verify", "--json", *arguments),
        cwd=world.folder,
        env=world.environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(VERIFY_SECONDS):
            said, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    try:
        return dict(json.loads(said))
    except ValueError:
        verdict.problems.append(f"verify {' '.join(arguments)} ended with {process.returncode}: {errors.decode()}")
        return {}


@dataclass(frozen=True)
class Outcome:
    """One fault and what came of it, in seconds, all counted from the strike.

    `held` is until everything was there again, servers restarted and a leader elected; `idle` until the last moment at
    which MongoDB took no writes; `recovery` until the last one of a long lag.
    """

    name: str
    victim: str
    began: float
    held: float
    idle: float
    recovery: float

    @property
    def after(self) -> float:
        """What of the recovery came after the fault's end and after MongoDB took writes: the service's own share."""
        return max(0.0, self.recovery - max(self.held, self.idle))

    def __str__(self) -> str:
        return (
            f"{self.began:7.1f} s  {self.name:<24} {self.victim:<28} held {self.held:5.1f} s  "
            f"no writes {self.idle:5.1f} s  recovered after {self.recovery:5.1f} s, {self.after:5.1f} s of them its own"
        )


def table(outcomes: list[Outcome], verdicts: list[Verdict], certain: int, uncertain: int) -> str:
    """The report: recovery by fault, and what the streams hold."""
    lines = [
        "",
        f"{'recovery in seconds':<24} {'times':>5}  {'from the begin: p50':>19} {'max':>5}  of its own: p50   max",
    ]
    for name in dict.fromkeys(one.name for one in outcomes):
        begin = [one.recovery for one in outcomes if one.name == name]
        end = [one.after for one in outcomes if one.name == name]
        seconds = f"{median(begin):>19.1f} {max(begin):>5.1f}  {median(end):>15.1f} {max(end):>5.1f}"
        lines.append(f"{name:<24} {len(begin):>5}  {seconds}")
    lines += [
        "",
        f"{'watcher':<12} {'messages':>9} {'compared':>9} {'listed':>9} " + " ".join(f"{k:>9}" for k in KINDS),
    ]
    for verdict in verdicts:
        numbers = [verdict.messages, verdict.compared, verdict.listed, *verdict.wrong.values()]
        lines.append(f"{verdict.watcher:<12} " + " ".join(f"{number:>9,}" for number in numbers))
    return "\n".join([*lines, "", f"changes made for certain: {certain:,}, uncertain: {uncertain:,}"])
