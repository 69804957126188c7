"""The report of a comparison: for people, a few lines; for programs, one JSON object."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from app.domain.tokens import is_token
from app.verify.findings import KINDS, Findings

TOLD: Final = 20
"""How many findings of a kind are printed for people."""
_WORDS: Final = {
    "lost": "not on the stream",
    "doubled": "on the stream more than once",
    "reordered": "out of order",
    "altered": "not as it was in MongoDB",
    "unknown": "not in MongoDB's history",
}


@dataclass(frozen=True, slots=True)
class Report:
    """What was compared with what, and what came of it. `begin` and `end` are seconds since 1970, None: nothing."""

    watcher: str
    source: str
    stream: str
    against: str
    findings: Findings
    begin: int | None = None
    end: int | None = None

    def as_json(self) -> dict[str, Any]:
        found = self.findings
        return {
            "watcher": self.watcher,
            "source": self.source,
            "stream": self.stream,
            "against": self.against,
            "ok": found.right,
            "from": _iso(self.begin),
            "to": _iso(self.end),
            "compared": found.compared,
            **({"collections": dict(sorted(found.compared_of.items()))} if found.compared_of else {}),
            "messages": found.messages,
            "epochs": found.epochs,
            "waiting": found.waiting,
            "foreign": found.foreign,
            "rows": found.rows,
            "rows_compared": found.rows_compared,
            "snapshots": [run.as_json() for run in found.snapshots],
            "not_compared": dict(found.skipped),
            "notes": list(found.notes),
            **{
                kind: {"total": faults.total, "findings": [one.as_json() for one in faults.first]}
                for kind, faults in found.faults.items()
            },
        }

    def lines(self) -> list[str]:
        """The report in lines, the verdict last."""
        found = self.findings
        span = f", {_iso(self.begin)} to {_iso(self.end)}" if self.begin is not None else ""
        told = [
            f"{self.watcher}: stream {self.stream}, compared with {self.against}{span}",
            ", ".join(f"{name}: {getattr(found, name):,}" for name in ("messages", "compared", "waiting", "foreign")),
        ]
        told += [str(run) for run in found.snapshots]
        if found.rows_compared:
            told.append(f"rows compared with the changes before them: {found.rows_compared:,}")
        if found.compared_of:
            told.append(f"compared by collection: {_counts(found.compared_of)}")
        told += [f"not compared: {count:,} {reason}" for reason, count in found.skipped.items()]
        told += [f"note: {note}" for note in found.notes]
        for kind in KINDS:
            faults = found.faults[kind]
            if not faults.total:
                continue
            told.append(f"{kind}: {faults.total:,} {_WORDS[kind]}")
            for each in faults.first[:TOLD]:
                place = "" if each.sequence is None else f"#{each.sequence} "
                epoch = f" (epoch {each.epoch})" if each.epoch else ""
                told.append(f"  {place}{each.what}{epoch}")
                told += [f"    {each.token}"] if each.token else []
            if faults.total > TOLD:
                told.append(f"  … and {faults.total - TOLD:,} more")
        return [*told, self._verdict()]

    def _verdict(self) -> str:
        found = self.findings
        if not found.right:
            counted = [f"{found.faults[kind].total:,} {kind}" for kind in KINDS if found.faults[kind].total]
            return f"WRONG: {', '.join(counted)}"
        rows = f"{found.rows:,} rows of snapshots, each once and in its place" if found.rows else ""
        if not found.compared:
            return f"OK: {rows}" if rows else "OK: nothing could be compared"
        changes = "change, once" if found.compared == 1 else "changes, each once and in order"
        return f"OK: {found.compared:,} {changes}" + (f"; {rows}" if rows else "")


def seconds_of(token: str) -> int | None:
    """The cluster time, in seconds, of a token or of the beginning of one; None of anything else."""
    return int(token[2:10], 16) if is_token(token[:18]) else None


def _counts(of: Mapping[str, int]) -> str:
    """The collections with the most changes, each with its number."""
    most = sorted(of.items(), key=lambda each: (-each[1], each[0]))
    more = f" … and {len(most) - TOLD:,} more collections" if len(most) > TOLD else ""
    return ", ".join(f"{name or 'no collection'} {count:,}" for name, count in most[:TOLD]) + more


def _iso(seconds: int | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
