"""What the streams hold, by `changewire verify`: once against MongoDB's history, once against the writers' own list.

Of the streams that lose messages by design, what is left is compared with the history, and what was ever delivered of
them by the ledger.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

from app.verify.findings import KINDS
from tests.faults import ledger
from tests.faults.testbed import DATABASE, KEPT, RECORDED, Testbed
from tests.zygote import changewire

VERIFY_SECONDS = 3600
"""For what a soak of a night has left."""


@dataclass
class Verdict:
    """One watcher's two comparisons. `problems`: that one could not be made, or is not complete."""

    watcher: str
    messages: int = 0
    compared: int = 0
    listed: int = 0
    """Writes of the list that were found."""
    destroyed: int = 0
    """Messages that were purged, or deleted with their stream, before the recorder came to them."""
    in_gaps: int = 0
    """Changes that a gap's marker says are missing."""
    foreign: int = 0
    """Messages that somebody else has published to the watcher's subjects, as the runner has done."""
    wrong: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    problems: list[str] = field(default_factory=list)


async def verify(testbed: Testbed) -> list[Verdict]:
    """Compare every watcher's stream; the services have ended."""
    kept = (compare(testbed, name) for name in KEPT)
    recorded = (_audit(testbed, name) for name in RECORDED)
    return await asyncio.gather(*kept, *recorded)


async def compare(testbed: Testbed, name: str) -> Verdict:
    """Compare a stream that keeps all, twice: with MongoDB's history and with the writers' list."""
    path = testbed.folder / f"{name}.jsonl"
    testbed.writers.save(name, path)
    verdict = Verdict(name)
    history = await _report(testbed, verdict, name)
    listed = await _report(testbed, verdict, name, "--writes", str(path))
    verdict.messages = history.get("messages", 0)
    verdict.compared = history.get("compared", 0)
    verdict.listed = listed.get("compared", 0)
    for report in (history, listed):
        if report.get("not_compared"):
            verdict.problems.append(f"not compared: {report['not_compared']}")
        _adopt(verdict, report)
    verdict.foreign = history.get("foreign", 0)
    most = testbed.foreign[name] + testbed.foreign_uncertain[name]
    if not testbed.foreign[name] <= verdict.foreign <= most:
        verdict.problems.append(f"{verdict.foreign} foreign, where {testbed.foreign[name]} to {most} were published")
    rows = history.get("rows", 0) + sum(run["complete"] for run in history.get("snapshots", ()))
    if verdict.compared + verdict.foreign + rows != verdict.messages:
        verdict.problems.append(
            f"{verdict.messages} messages, {verdict.compared} compared with MongoDB's history, {rows} of snapshots"
        )
    return verdict


async def _audit(testbed: Testbed, name: str) -> Verdict:
    """Compare what was recorded of a stream, and by `changewire verify` what is left on it."""
    verdict, recorder = Verdict(name), testbed.recorders[name]
    report = await _report(testbed, verdict, name)
    _adopt(verdict, report)
    if report.get("foreign"):
        verdict.problems.append(f"{report['foreign']} foreign")
    async with asyncio.timeout(VERIFY_SECONDS):
        history = await ledger.read_history(testbed.mongo.uri, DATABASE, name, testbed.since)
    account = await asyncio.to_thread(ledger.audit, recorder.records, history, recorder.resets)
    verdict.messages, verdict.compared = account.recorded + account.destroyed, account.recorded
    verdict.destroyed, verdict.in_gaps = account.destroyed, account.in_gaps
    if account.gaps + len(recorder.resets) != recorder.incarnations - 1:
        verdict.problems.append(f"{recorder.incarnations} streams, but {account.gaps} gaps are marked")
    for kind in KINDS:
        found: list[str] = getattr(account, kind)
        verdict.wrong[kind] = max(verdict.wrong[kind], len(found))
        verdict.problems += [f"{kind}, as recorded: {what}" for what in found[:5]]
    return verdict


def _adopt(verdict: Verdict, report: dict[str, Any]) -> None:
    """Take over what `changewire verify` found."""
    if report.get("waiting"):
        verdict.problems.append(f"{report['waiting']} waiting")
    for kind in KINDS:
        found = report.get(kind, {"total": 0, "findings": []})
        verdict.wrong[kind] = max(verdict.wrong[kind], found["total"])
        verdict.problems += [f"{kind}: {one['what']} {one['token'] or ''}" for one in found["findings"][:5]]


async def _report(testbed: Testbed, verdict: Verdict, *arguments: str) -> dict[str, Any]:
    asked = ("verify", "--json", *arguments)
    done = await changewire(*asked, cwd=testbed.folder, env=testbed.environment, within=VERIFY_SECONDS)
    try:
        return dict(json.loads(done.output))
    except ValueError:
        verdict.problems.append(f"verify {' '.join(arguments)} ended with {done.code}: {done.errors}")
        return {}
