"""What a comparison finds: the values, counted without bound and remembered within one."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

KINDS = ("lost", "doubled", "reordered", "altered", "unknown")
"""The faults: not on the stream, there twice, after a later one, changed, and not known to MongoDB at all."""
REMEMBERED = 1_000
"""How many findings of a kind are told one by one; of the others only the number is kept."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault. `token` is None for a write of a list, which has none; `sequence` for what is not on the stream."""

    token: str | None
    what: str
    """In words, with operation and key where they are known."""
    epoch: int = 0
    sequence: int | None = None

    def as_json(self) -> dict[str, Any]:
        return {"token": self.token, "epoch": self.epoch, "sequence": self.sequence, "what": self.what}


@dataclass(slots=True)
class Faults:
    """The findings of one kind: how many, and the first of them."""

    total: int = 0
    first: list[Finding] = field(default_factory=list)

    def add(self, finding: Finding) -> None:
        self.total += 1
        if len(self.first) < REMEMBERED:
            self.first.append(finding)


@dataclass(slots=True)
class SnapshotRun:
    """One run of a snapshot on the stream. `done` is how many documents its end tells of, None where there is no end;
    `state` what the service has stored of it, where it knows the run."""

    run: str
    epoch: int = 0
    rows: int = 0
    done: int | None = None
    state: str | None = None

    def as_json(self) -> dict[str, Any]:
        return {
            "run": self.run, "epoch": self.epoch, "rows": self.rows, "documents": self.done,
            "complete": self.done is not None, "state": self.state,
        }  # fmt: skip

    def __str__(self) -> str:
        end = self.state or "without an end" if self.done is None else f"complete, {self.done:,} documents"
        return f"snapshot {self.run}: {self.rows:,} rows, {end}"


@dataclass(slots=True)
class Findings:
    """All that a comparison has to say."""

    faults: dict[str, Faults] = field(default_factory=lambda: {kind: Faults() for kind in KINDS})
    compared: int = 0
    """Changes that were compared with their message, one by one."""
    compared_of: Counter[str] = field(default_factory=Counter)
    """The same by collection, where the watcher has more than one."""
    messages: int = 0
    """Messages read in the watcher's subjects, foreign ones among them."""
    waiting: int = 0
    """Changes after the watcher's position: not published yet."""
    foreign: int = 0
    """Messages that are not the watcher's: no token as id, or of another collection."""
    rows: int = 0
    """Rows of snapshots."""
    rows_compared: int = 0
    """Those that were compared with what the changes before them tell of their documents."""
    snapshots: list[SnapshotRun] = field(default_factory=list)
    epochs: list[int] = field(default_factory=list)
    skipped: dict[str, int] = field(default_factory=dict)
    """What could not be compared, by the reason, which completes "3 …"."""
    notes: list[str] = field(default_factory=list)

    @property
    def right(self) -> bool:
        return not any(faults.total for faults in self.faults.values())

    def skip(self, reason: str, count: int = 1) -> None:
        self.skipped[reason] = self.skipped.get(reason, 0) + count
