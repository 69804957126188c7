"""The measured part of docs/sizing.md, from a run's fan-out section. What was not measured has no row."""

from collections.abc import Iterable, Mapping
from typing import Any

from bench.fan_out_rows import OURS, kinds
from bench.report import median_of, table

Run = Mapping[str, Any]
BACKLOG = "a backlog"


def generated(data: Run) -> str:
    """The Markdown between the page's markers, of this version's figures; `data` is the section's."""
    words = kinds(data)
    parts = [table([_HEAD, *_idle(data, words), *_steady(data, words), *_backlog(data, words)])]
    parts.append("\n".join(f"- {each}" for each in (_MEANING, *_memory(data), *_oplog(data), *_starting(data, words))))
    return "\n\n".join(parts)


_HEAD = ["", "changes/s", "service", "mongod", "nats-server", "memory, MB", "p50 / p99, ms", "oplog, bytes a change"]
_MEANING = (
    "Processor time is in parts of one core; memory is the service's. The changes are inserts of 1,400 bytes. For a "
    "backlog, changes/s is how fast it is drained."
)


def _ours(data: Run, name: str) -> list[Run]:
    return [run for run in data[name] if run["contender"] == OURS]


def _cores(used: Mapping[str, float]) -> list[str]:
    return [f"{used[name]:.1%}" if used[name] < 0.1 else f"{used[name]:.0%}" for name in ("service", "mongod", "nats")]


def _idle(data: Run, words: Mapping[str, str]) -> Iterable[list[str]]:
    for run in _ours(data, "idle"):
        yield [words[run["what"]], "none", *_cores(run["cpu"]), f"{run['rss_mb']:.0f}", "", ""]


def _steady(data: Run, words: Mapping[str, str]) -> Iterable[list[str]]:
    for run in sorted(_ours(data, "steady"), key=lambda each: each["rate"]):
        used = {name: us * run["rate"] / 1e6 for name, us in run["cpu_us"].items()}
        late = run["percentiles"]
        oplog = "" if run["oplog_bytes"] is None else f"{run['oplog_bytes']:,.0f}"
        yield [
            words[run["what"]],
            f"{run['rate']:,}",
            *_cores(used),
            f"{run['rss_mb']:.0f}",
            f"{late['p50']:.1f} / {late['p99']:.1f}",
            oplog,
        ]


def _backlog(data: Run, words: Mapping[str, str]) -> Iterable[list[str]]:
    """The median round of each; the start of the process is part of its processor time."""
    for what in dict.fromkeys(run["what"] for run in _ours(data, "drains")):
        runs = [run for run in _ours(data, "drains") if run["what"] == what]
        used = {
            name: median_of(run["cpu_us"][name] * run["from_start"] / 1e6 for run in runs)
            for name in ("service", "mongod", "nats")
        }
        rate = median_of(run["from_first"] for run in runs)
        peak = max(run["peak_mb"] for run in runs)
        yield [words[what], f"{BACKLOG}: {rate:,.0f}", *_cores(used), f"{peak:.0f}", "", ""]


def _memory(data: Run) -> Iterable[str]:
    resident = {run["what"]: run["rss_mb"] for run in _ours(data, "idle")}
    least, most = min(data["numbers"]), max(data["numbers"])
    if least < most and {f"{least:,}", f"{most:,}"} <= resident.keys():
        each = (resident[f"{most:,}"] - resident[f"{least:,}"]) / (most - least)
        yield f"A watcher takes {each * 1024:,.0f} kB of memory ({most:,} against {least:,}, idle)."


def _oplog(data: Run) -> Iterable[str]:
    for run in _ours(data, "idle"):
        written = run["oplog_bytes_per_second"]
        if run["what"] == f"{max(data['numbers']):,}" and written is not None:
            yield f"While {run['what']} watchers idle, {written:,.0f} bytes a second are written to the oplog."


def _starting(data: Run, words: Mapping[str, str]) -> Iterable[str]:
    for run in _ours(data, "started"):
        if run["seconds"] is not None:
            yield f"From the start of the process until all run, {words[run['what']]}: {run['seconds']:.1f} s."
