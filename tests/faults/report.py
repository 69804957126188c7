"""What a run found: as text while it goes on, as JSON, and several runs as the tables of docs/reliability.md.

python -m tests.faults.report run-1.json run-2.json run-3.json
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from app.verify.findings import KINDS
from tests.faults.verdict import Verdict

TWO = "two at once"


@dataclass(frozen=True)
class Outcome:
    """One fault and what came of it, in seconds, all but `began` counted from the strike.

    `lifted` is when the fault was over, `whole` when everything was there again, servers caught up and leaders elected,
    `idle` the last moment at which MongoDB took no writes, `late` the last one of a lag of a second or more.
    """

    name: str
    """The fault's, or both joined by a +."""
    victim: str
    began: float
    lifted: float
    whole: float
    idle: float
    late: float
    took: float = 0.0
    """All of it: until changes were seen to flow again for a while."""

    @property
    def kind(self) -> str:
        """The fault, or that there were two."""
        return TWO if "+" in self.name else self.name

    @property
    def recovery(self) -> float:
        """From the end of the fault until the lag was below a second."""
        return max(0.0, self.late - self.lifted)

    @property
    def own(self) -> float:
        """What of the recovery came after the servers were whole and MongoDB took writes: the service's own share."""
        return max(0.0, self.late - max(self.whole, self.idle, self.lifted))

    def __str__(self) -> str:
        return (
            f"{self.began:7.1f} s  {self.name:<30} {self.victim:<28} for {self.lifted:5.1f} s  "
            f"recovered in {self.recovery:5.1f} s, {self.own:5.1f} s of them its own"
        )


@dataclass(frozen=True)
class Run:
    """All of one run."""

    seed: int
    command: str
    minutes: float
    versions: str
    outcomes: Sequence[Outcome]
    verdicts: Sequence[Verdict]
    certain: int
    """Changes that MongoDB has acknowledged."""
    uncertain: int
    """Changes that ended in an error, made or not."""
    problems: Sequence[str]
    modes: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """How often each watcher was seen in which publish mode."""
    taken_back: int = 0
    """How often changes were taken for stored that the stream does not have."""

    def as_json(self) -> dict[str, Any]:
        """The run as `read` takes it."""
        return asdict(self)

    @classmethod
    def read(cls, path: Path) -> Run:
        """Read what `as_json` gave."""
        document = json.loads(path.read_text())
        document["outcomes"] = [Outcome(**one) for one in document["outcomes"]]
        document["verdicts"] = [Verdict(**one) for one in document["verdicts"]]
        return cls(**document)

    @property
    def faults(self) -> int:
        """How many faults there were."""
        return sum(1 + outcome.name.count("+") for outcome in self.outcomes)

    @property
    def messages(self) -> int:
        """All that was published."""
        return sum(verdict.messages for verdict in self.verdicts)

    def wrong(self, kind: str) -> int:
        """How many of a kind were found on all streams."""
        return sum(verdict.wrong[kind] for verdict in self.verdicts)

    def text(self) -> str:
        """The report at the end of a run."""
        lines = [
            "",
            f"{'seconds':<30} {'times':>5}  {'until over it: p50':>18}   max  {'its own share: p50':>18}   max   took",
        ]
        for name, (times, p50, most, own_p50, own_most) in recoveries([self]).items():
            took = median(outcome.took for outcome in self.outcomes if outcome.kind == name)
            lines.append(
                f"{name:<30} {times:>5}  {p50:>18.1f} {most:>5.1f}  {own_p50:>18.1f} {own_most:>5.1f}  {took:>5.1f}"
            )
        titles = ("messages", "compared", "listed", "destroyed", "in gaps", "foreign", *KINDS)
        lines += ["", f"{'watcher':<12} " + " ".join(f"{title:>9}" for title in titles)]
        for one in self.verdicts:
            numbers = [one.messages, one.compared, one.listed, one.destroyed, one.in_gaps, one.foreign]
            numbers += one.wrong.values()
            lines.append(f"{one.watcher:<12} " + " ".join(f"{number:>9,}" for number in numbers))
        lines += ["", "publish modes, and how often each was seen:"]
        for watcher, seen in self.modes.items():
            lines.append(f"{watcher:<12} " + ", ".join(f"{mode} {times:,}" for mode, times in sorted(seen.items())))
        lines += ["", f"{self.faults} faults in {self.minutes:.1f} minutes"]
        lines += [f"changes made for certain: {self.certain:,}, uncertain: {self.uncertain:,}"]
        return "\n".join(lines)


def recoveries(runs: Sequence[Run]) -> dict[str, tuple[int, float, float, float, float]]:
    """By kind of fault: how often, recovery's median and maximum, those of the service's own share."""
    outcomes = [outcome for run in runs for outcome in run.outcomes]
    found = {}
    for name in sorted({outcome.kind for outcome in outcomes}, key=lambda name: (name == TWO, name)):
        ours = [outcome for outcome in outcomes if outcome.kind == name]
        seconds, own = [one.recovery for one in ours], [one.own for one in ours]
        found[name] = (len(ours), median(seconds), max(seconds), median(own), max(own))
    return found


def markdown(runs: Sequence[Run]) -> str:
    """The tables of docs/reliability.md."""
    titles = ("run", "minutes", "faults", "changes", "messages", *KINDS, "destroyed by hand, unread", "in marked gaps")
    lines = [" | ".join(("", *titles, "")).strip(), "|" + "---|" * len(titles)]
    for run in runs:
        destroyed = sum(verdict.destroyed for verdict in run.verdicts)
        gaps = sum(verdict.in_gaps for verdict in run.verdicts)
        numbers = (run.faults, run.certain, run.messages, *(run.wrong(kind) for kind in KINDS), destroyed, gaps)
        cells = (f"`{run.command}`", f"{run.minutes:.0f}", *(f"{number:,}" for number in numbers))
        lines.append(" | ".join(("", *cells, "")).strip())
    lines += [
        "",
        f"With {' and '.join(sorted({run.versions for run in runs}))}.",
        "",
        "| fault | times | recovery p50, s | max | its own share p50, s | max |",
        "|---|---|---|---|---|---|",
    ]
    for name, (times, *seconds) in recoveries(runs).items():
        lines.append(" | ".join(("", f"`{name}`", str(times), *(f"{second:.1f}" for second in seconds), "")).strip())
    return "\n".join(lines)


if __name__ == "__main__":
    print(markdown([Run.read(Path(name)) for name in sys.argv[1:]]))
