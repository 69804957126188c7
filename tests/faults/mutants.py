"""Breaks the protocol on purpose, and looks whether the fault runner notices: `make mutants`.

Each mutant is a copy of the project with a few lines of `app/` changed, run under the faults that should give it away.
It is caught where the streams turn out wrong, or where a problem says what is looked for; a run that merely stops does
not count. Those of snapshots are given away by tests that run in seconds. The copy that is not changed goes through all
these faults and tests, and has to come out right.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from app.verify.findings import KINDS
from tests.faults.__main__ import program
from tests.faults.catalogue import FAULTS
from tests.faults.forms import CROWD, INSTANCES, SNAPSHOTS
from tests.faults.mutant import Edit, Mutant
from tests.faults.snapshot_mutants import SNAPSHOT_MUTANTS

ROOT = Path(__file__).resolve().parent.parent.parent
PATIENCE_SECONDS = 30
SILENCE_SECONDS = 2
"""A standby that takes over so soon finds a zombie whose connections still hold: the fence alone stops it then."""
RUN_SECONDS = 600
AT_ONCE = """
from hypothesis import Phase, settings

settings.register_profile("mutants", phases=(Phase.explicit, Phase.generate), derandomize=True)
settings.load_profile("mutants")
"""
"""What properties are tried with: that an example fails is enough, and the smallest one is not looked for."""


OF_CHANGES = (
    Mutant(
        "skip the read-back",  # what has no certain outcome counts as stored
        ("link-nats-reset", "nats-kill-all"),
        (
            Edit(
                "app/pipeline/publisher.py",
                "        rest = await ledger.read_back(waiting, error)\n        if isinstance(",
                "        rest = waiting[tried:]\n        if isinstance(",
            ),
        ),
    ),
    Mutant(
        "skip the fence",
        ("batch-zombie-r3",),
        (
            Edit(
                "app/jetstream/publish/sender.py",
                "return frames.fence(self.stream, sequence, None if self.exclusive else self._filter)",
                'return ""',
            ),
        ),
    ),
    Mutant(
        "checkpoint before the acknowledgement",
        ("link-nats-cut", "nats-freeze-all"),
        (
            Edit(
                "app/pipeline/capture.py",
                "                await self._in_flight.put(",
                "                from dataclasses import replace\n"
                "                early = replace(self._ledger.reached, token=encoded.position)\n"
                "                self._checkpointer.note(self._run.checkpoint(early))\n"
                "                await self._in_flight.put(",
            ),
        ),
    ),
    Mutant(
        "resend blindly on a time-out",
        ("link-nats-only-up",),
        (
            Edit(
                "app/jetstream/sink.py",
                "    async def publish(self, changes: Sequence[Change], fence: int) -> int:\n",
                "    async def publish(self, changes: Sequence[Change], fence: int) -> int:\n"
                "        from app.domain.errors import OutcomeUnknown\n"
                "\n"
                "        try:\n"
                "            return await self._publish(changes, fence)\n"
                "        except OutcomeUnknown as error:\n"
                "            if type(error) is not OutcomeUnknown:\n"
                "                raise\n"
                "        self._sender.blind = True\n"
                "        try:\n"
                "            return await self._publish(changes, fence)\n"
                "        finally:\n"
                "            self._sender.blind = False\n"
                "\n"
                "    async def _publish(self, changes: Sequence[Change], fence: int) -> int:\n",
            ),
            Edit(
                "app/jetstream/publish/sender.py",
                "return frames.fence(self.stream, sequence, None if self.exclusive else self._filter)",
                "subjects = None if self.exclusive else self._filter\n"
                '        return "" if self.blind else frames.fence(self.stream, sequence, subjects)\n'
                "\n"
                "    blind = False",
            ),
        ),
    ),
    Mutant(
        "resume from the checkpoint alone",
        ("service-kill-all", "service-kill"),
        (
            Edit(
                "app/domain/opening.py",
                "    own = tail.own.id.position if tail.own is not None and tail.own.id.epoch == epoch else None\n"
                "    latest = facts.known\n",
                "    own = None\n    latest = facts.known\n",
            ),
        ),
    ),
    Mutant(
        "believe a flow acknowledgement beyond its number",
        ("batch-reset-r1",),
        (
            Edit(
                "app/jetstream/publish/fast_ingest.py",
                "        self._acked, self._granted = ack.number, max(1, ack.flow)\n",
                "        self._acked, self._granted = ack.number, max(1, ack.flow)\n"
                "        while self._units and self._units[0].last <= self._acked + self._granted:\n"
                "            self._store(self._units.popleft())\n",
            ),
        ),
    ),
    Mutant(
        "send on after an error",
        ("batch-foreign-r1",),
        (
            Edit(
                "app/pipeline/in_flight.py",
                "        await self._publisher.publish_after(failure, first.read_at)\n",
                "        if rest := await self._ledger.read_back(unsent, failure.error):\n"
                "            await self._publisher.publish(rest, first.read_at)\n",
            ),
        ),
    ),
    Mutant(
        "fence the first message of a batch alone",
        ("batch-zombie-r1",),
        (
            Edit(
                "app/jetstream/frames.py",
                'Numbered(prefix, fence + begin, "\\r\\n")',
                'Numbered("Changewire-Number: ", begin, "\\r\\n")',
            ),
        ),
        minutes=1.0,  # it shows only where the zombie's connection still holds
    ),
    Mutant(
        "do not fence the second batch under way",
        ("batch-zombie-r3",),
        (
            Edit(
                "app/jetstream/publish/atomic.py",
                ", batch, self._sender.fence(fence))\n",
                ",\n                batch, '' if sum(not each.done() for each in self._under_way) > 1 "
                "else self._sender.fence(fence))\n",
            ),
        ),
    ),
    Mutant(
        "give an event to the wrong watcher",  # what nobody wants goes to somebody
        ("crowd-paused", "crowd-visited"),
        (
            Edit(
                "app/mongodb/feeds/feed.py",
                "self._give(part, self._members.get((part.database, part.collection), ()), batch.reduced)",
                "somebody = next(iter(self._members.values()), ())\n"
                "                self._give(\n"
                "                    part,\n"
                "                    self._members.get((part.database, part.collection), somebody),\n"
                "                    batch.reduced,\n"
                "                )",
            ),
        ),
    ),
    Mutant(
        "skip one when joining",
        ("crowd-service-kill-all", "crowd-paused"),
        (Edit("app/mongodb/feeds/member.py", "return events[index:]", "return events[index + 1 :]"),),
    ),
    Mutant(
        "join ahead of the watcher's position",
        ("crowd-paused", "crowd-service-kill-all"),
        (
            Edit(
                "app/mongodb/feeds/group.py",
                "        if live is None or after < live.reaches_back:\n",
                "        if live is None:\n",
            ),
        ),
    ),
    Mutant(
        "go on after what was dropped when let go",
        ("crowd-let-go",),
        (
            Edit(
                "app/mongodb/feeds/sharing.py",
                "            self._member, self._why = None, member.let_go\n",
                "            self._member, self._why = None, member.let_go\n"
                "            self._position = max(self._position, getattr(member.feed, 'position'))\n",
            ),
        ),
    ),
    Mutant(
        "never replace an owner that is gone",
        ("instances-killed",),
        (Edit("app/domain/instances.py", "        if owner.by not in live:\n", '        if owner.by == "":\n'),),
        says="the others run everything",
    ),
    Mutant(
        "thaw an owner that nothing fences",
        ("instances-zombie-r3", "instances-zombie-r1"),
        (
            Edit(
                "app/jetstream/publish/sender.py",
                "return frames.fence(self.stream, sequence, None if self.exclusive else self._filter)",
                'return ""',
            ),
        ),
    ),
)
MUTANTS: tuple[Mutant, ...] = (*OF_CHANGES, *SNAPSHOT_MUTANTS)
UNCHANGED = (
    *(
        Mutant("none", names, ())
        for form in (FAULTS, CROWD, INSTANCES, SNAPSHOTS)
        if (names := tuple(dict.fromkeys(fault for mutant in MUTANTS for fault in mutant.faults if fault in form)))
    ),
    Mutant("none", (), (), tests=tuple(dict.fromkeys(test for mutant in SNAPSHOT_MUTANTS for test in mutant.tests))),
)
"""The code as it is, under all of these faults, one run for each form, and by all of these tests."""


def copy(folder: Path) -> None:
    """Copy what a run needs."""
    for name in ("app", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)


def mutate(folder: Path, mutant: Mutant) -> None:
    """Apply a mutant's edits to a copy. Raises ValueError where one does not fit any more."""
    for edit in mutant.edits:
        path = folder / edit.file
        text = path.read_text()
        if text.count(edit.before) != 1:
            raise ValueError(f"{mutant.name}: {edit.file} does not hold this once any more:\n{edit.before}")
        path.write_text(text.replace(edit.before, edit.after))


def judge(mutant: Mutant, seed: int, mongod: Path | None = None) -> tuple[bool, bool, str]:
    """Run a mutant. Returns whether the run was right, whether the streams were wrong, and what was found."""
    with tempfile.TemporaryDirectory(prefix="changewire-mutant-") as name:
        folder = Path(name)
        copy(folder)
        mutate(folder, mutant)
        if mutant.tests:
            return _tested(folder, mutant)
        found = folder / "found.json"
        arguments = ["--seed", str(seed), "--only", ",".join(mutant.faults), "--json", str(found)]
        arguments += ["--patience", str(PATIENCE_SECONDS), "--silence", str(SILENCE_SECONDS)]
        if mongod is not None:
            arguments += ["--mongod", str(mongod)]
        if mutant.minutes is not None:
            arguments += ["--minutes", str(mutant.minutes)]
        command = [sys.executable, "-m", "tests.faults", *arguments]
        environment = {**os.environ, "PYTHONPATH": str(folder), "TMPDIR": str(folder)}
        said = folder / "said.log"
        with said.open("wb") as log:
            process = subprocess.Popen(
                command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
            try:
                code = process.wait(RUN_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()  # its servers and services die with it
                code = process.wait()
        if not found.exists():
            return False, False, f"ended with {code} and no result:\n{said.read_text()[-2000:]}"
        document = json.loads(found.read_text())
    if document["taken_back"]:
        return False, True, f"{document['taken_back']:,} acknowledgements taken back"
    totals = {kind: sum(verdict["wrong"][kind] for verdict in document["verdicts"]) for kind in KINDS}
    wrong = ", ".join(f"{total:,} {kind}" for kind, total in totals.items() if total)
    if mutant.says is not None:
        wrong = next((problem[:200] for problem in document["problems"] if mutant.says in problem), wrong)
    return code == 0, bool(wrong), wrong or "; ".join(document["problems"])[:500] or "nothing"


def _tested(folder: Path, mutant: Mutant) -> tuple[bool, bool, str]:
    """As `judge`, by tests alone: what fails has to be a test, and not the tests' own beginning."""
    with (folder / "tests" / "properties" / "conftest.py").open("a") as conftest:
        conftest.write(AT_ONCE)
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *mutant.tests]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=RUN_SECONDS, check=False
    )
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAILED ")]
    said = failed[0].partition(" - ")[0] if failed else done.stdout[-500:] if done.returncode else "all tests pass"
    return done.returncode == 0, bool(failed), said


def main(argv: Sequence[str] | None = None) -> int:
    """Run all, and return 0 where every mutant was caught and the unchanged copy was right."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults.mutants", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", metavar="TEXT", default="", help="those whose name holds this")
    parser.add_argument("--mongod", type=program, metavar="FILE", help="run on this mongod (make: NEWER=1)")
    given = parser.parse_args(argv)
    missed = 0
    for mutant in (*UNCHANGED, *MUTANTS):
        if given.only not in mutant.name:
            continue
        right, wrong, found = judge(mutant, given.seed, given.mongod)
        if mutant in UNCHANGED:
            good, said = right, "right" if right else "WRONG"
        else:
            good, said = wrong, "caught" if wrong else "NOT CAUGHT"
        missed += not good
        print(f"{mutant.name:<38} under {', '.join(mutant.faults or mutant.tests)}: {said} ({found})", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
