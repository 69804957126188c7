"""Mutants of snapshots. Each is caught by tests that run in seconds, and most of them by the faults as well."""

from __future__ import annotations

from tests.faults.mutant import Edit, Mutant

PROPERTIES = "tests/properties/test_snapshot_properties.py"
KEYS = "tests/integration/mongodb/test_row_source.py"

SNAPSHOT_MUTANTS = (
    Mutant(
        "rows after changes that come after them",  # a batch is not divided at the mark
        (),
        (
            Edit(
                "app/pipeline/snapshot.py",
                "before = bisect_left(changes, mark, key=lambda change: change.token)",
                "before = len(changes)",
            ),
        ),
        tests=(PROPERTIES,),
    ),
    Mutant(
        "resume at a chunk's beginning",  # though some of its rows are there
        (),
        (
            Edit(
                "app/pipeline/snapshot_rows.py",
                "there = sum(place <= self._ledger.reached.token for place in places)",
                "there = 0",
            ),
        ),
        tests=(PROPERTIES,),
    ),
    Mutant(
        "read as of the clock's time",  # and not as of the mark's
        (),
        (
            Edit(
                "app/pipeline/snapshot_rows.py",
                "run.parts[run.part], run.after, moment_before(mark), None\n",
                "run.parts[run.part], run.after, type(moment_before(mark))(int(self._clock()), 0), None\n",
            ),
        ),
        tests=(PROPERTIES,),
    ),
    Mutant(
        "a range by $gt across types",  # which sees values of one type alone
        (),
        (
            Edit(
                "app/mongodb/row_commands.py",
                'bounds.append({"$expr": {"$gt": ["$_id", _renamed(after, b"$literal")]}})',
                'bounds.append({"_id": _renamed(after, b"$gt")})',
            ),
        ),
        tests=(KEYS,),
    ),
    Mutant(
        "send rows before their plan is stored",
        (),
        (
            Edit(
                "app/pipeline/snapshot_rows.py",
                "await self._record.move(partial(Snapshot.planned, chunk=chunk))\n",
                "self._record._take(self._record.run.planned(chunk))\n",
            ),
        ),
        tests=(PROPERTIES,),
    ),
    Mutant(
        "take rows that others went past for sent",
        (),
        (
            Edit(
                "app/pipeline/ledger.py",
                'raise Stale("another writer has published changes that come after the snapshot\'s rows")',
                "pass",
            ),
        ),
        tests=(PROPERTIES,),
    ),
)
