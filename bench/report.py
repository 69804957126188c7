"""What a section hands back, and how it is shown: Markdown tables, which can be read and copied, and JSON."""

import json
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Target:
    """A figure beside what it should be; `met` is an observation about this run, on this machine."""

    what: str
    figure: str
    target: str
    met: bool


@dataclass(slots=True)
class Result:
    """A section's outcome: a table (its head first), remarks, targets, and everything measured, for the JSON file."""

    name: str
    title: str
    table: list[list[str]]
    remarks: list[str] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that so many percent do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(round(len(ordered) * percent / 100, 6)) - 1)]


def median_of(values: Iterable[float]) -> float:
    return statistics.median(values)


def spread(values: Sequence[float], form: str = ",.0f") -> str:
    """Median and range of a few rounds, such as `16,200 (15,900–16,800)`."""
    middle = format(median_of(values), form)
    return middle if len(values) == 1 else f"{middle} ({min(values):{form}}–{max(values):{form}})"


def table(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first row is its head."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def show(result: Result, level: int = 2) -> str:
    """A section as it is printed, under a heading of this level."""
    remarks = "".join(f"\n- {remark}" for remark in result.remarks)
    return f"\n{'#' * level} {result.title}\n\n{table(result.table)}\n{remarks}"


def show_targets(results: Sequence[Result], level: int = 2) -> str:
    """All targets of all sections, in one table."""
    rows = [["target", "", "measured", ""]]
    for result in results:
        rows += [[each.what, each.target, each.figure, "met" if each.met else "missed"] for each in result.targets]
    return f"\n{'#' * level} Against the targets\n\n{table(rows)}" if len(rows) > 1 else ""


def write_json(path: Path, machine: dict[str, Any], arguments: dict[str, Any], results: Sequence[Result]) -> None:
    """Write everything that was measured; directories are made as needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"machine": machine, "arguments": arguments, "sections": {each.name: asdict(each) for each in results}}
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read such a file."""
    content: dict[str, Any] = json.loads(path.read_text())
    return content
