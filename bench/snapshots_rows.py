"""The rows of the section `snapshot`, from what was measured: what is asked, and what was reached."""

from collections.abc import Mapping, Sequence
from typing import Any

from bench.instances_rows import Rows
from bench.report import Result, median_of, percentile, spread

LEAST_RATIO = 0.8
"""Of the rate at which events of the same size are drained."""
P99_MS = 250.0
MOST_MB = 100.0
AGAIN_SECONDS = 1.0
PROCESSES = ("service", "mongod", "nats")

Run = Mapping[str, Any]


def result_of(data: Run) -> Result:
    """The section's result."""
    rows = Rows("snapshot")
    _quiet(rows, data["drains"], data["runs"])
    for run in data["beside"]:
        _beside(rows, run, data["rate"])
    peaks = [run["peak"] for run in (*data["runs"], *data["beside"])]
    if peaks:
        idle = min(run["idle"] for run in (*data["runs"], *data["beside"]))
        _most(rows, f"memory, most of all of these (idle: {idle:.0f}), MB", max(peaks), MOST_MB, ".0f")
    _killed(rows, data["kills"], data["runs"])
    for run in data["others"]:
        speed = run["documents"] / run["seconds"] if run["rows"] < run["documents"] else run["per_second"]
        figure = f"{speed:,.0f} (CPU {_spent(run)}; {run['peak']:.0f} MB)"
        what = "documents looked at/s" if run["rows"] < run["documents"] else "rows/s"
        rows.add(f"{run['what']}: {what}, {run['documents']:,} documents", figure)
    if data["checked"]:
        count, changes = (f"{sum(each):,}" for each in zip(*data["checked"], strict=True))
        rows.add(
            "each document once in its run, after its insert; each change once and in order",
            f"{count} rows, {changes} changes", "all", met=True,
        )  # fmt: skip
    documents = data["sizes"]["documents"]
    title = f"Snapshots: {documents:,} documents of 1,400 bytes where nothing else is said"
    return Result("snapshot", title, rows.table, _remarks(data), rows.targets, dict(data))


def _quiet(rows: Rows, drains: Sequence[Run], runs: Sequence[Run]) -> None:
    if not runs:
        return
    rows.add("events drained by the same watcher, events/s", spread([each["per_second"] for each in drains]))
    rows.add("snapshot while nothing happens, rows/s", spread([each["per_second"] for each in runs]))
    ratio = median_of(run["per_second"] / drain["per_second"] for run, drain in zip(runs, drains, strict=True))
    least, met = f"≥ {LEAST_RATIO:g} ×", ratio >= LEAST_RATIO
    rows.add("snapshot against drain, round by round", f"{ratio:.2f} ×", least, met=met)
    for what, those in (("drain", drains), ("snapshot", runs)):
        rows.add(f"{what}: CPU, service / mongod / nats-server, µs each", " / ".join(
            f"{median_of(each['cpu_us'][name] for each in those):.1f}" for name in PROCESSES
        ))  # fmt: skip


def _beside(rows: Rows, run: Run, rate: int) -> None:
    for when in ("before", "during"):
        delays = run["delays"][when]
        if not delays:
            continue
        figures = " / ".join(f"{percentile(delays, each):.0f}" for each in (50, 95, 99))
        what = f"{rate} changes/s, {run['what']}: p50 / p95 / p99 of their delays {when} a snapshot, ms"
        p99 = percentile(delays, 99)
        if when == "during":
            rows.add(what, figures, f"p99 ≤ {P99_MS:g}", met=p99 <= P99_MS)
        else:
            rows.add(what, figures)
    rows.add(f"{rate} changes/s, {run['what']}: snapshot meanwhile, rows/s", f"{run['per_second']:,.0f}")


def _killed(rows: Rows, kills: Sequence[Run], runs: Sequence[Run]) -> None:
    if not kills or not runs:
        return
    speed = median_of(each["per_second"] for each in runs)
    worst = max(each["again"] for each in kills)
    what = f"kill -9 in the middle ({len(kills)} times): work repeated, s (worst; {worst:,} rows)"
    _most(rows, what, worst / speed, AGAIN_SECONDS, ".2f")
    rows.add("the same: until the next row after the start of the process, s",
             f"{max(each['seconds'] for each in kills):.1f}")  # fmt: skip


def _most(rows: Rows, what: str, value: float, most: float, form: str) -> None:
    rows.add(what, format(value, form), f"≤ {most:g}", met=value <= most)


def _spent(run: Run) -> str:
    return " / ".join(f"{run['cpu_us'][name]:.1f}" for name in PROCESSES) + " µs a row"


_REMARKS = """\
Drain and snapshot by turns, one watcher of one process: changes wait while it is frozen (SIGSTOP) and are drained; \
then a run publishes every document. Rates are by the server's times, from the first fifth of the messages on.
A delay is from the acknowledgement of a change by a majority to its arrival at a JetStream push consumer. The bench's \
own writer and listener share the processors.
Work repeated: the rows of chunks that were planned and not yet all on the stream. They are read again; those that are \
there are not published again.
By their documentation, the Kafka connector's copy_existing and Debezium's initial snapshot begin again after a crash, \
the first with duplicates; Debezium's incremental snapshots write to a signalling collection in the source.
"""


def _remarks(data: Run) -> list[str]:
    remarks = _REMARKS.splitlines()
    busy = [*data["drains"], *data["runs"], *data["others"]]
    if busy:
        share = max(run["others_share"] for run in busy)
        remarks.append(f"Other programs took at most {share:.0%} of the processors.")
    return remarks
