"""The rows of the section `instances`, from what was measured: what is asked, and what was reached."""

from collections.abc import Mapping, Sequence
from typing import Any

from bench.report import Result, Target, median_of, percentile

KILL_SECONDS, KILL_P99_SECONDS = 7.0, 8.0
STOP_SECONDS, JOIN_SECONDS = 1.0, 8.0
MOVE_SECONDS, ROLLING_SECONDS = 1.0, 2.0
"""How much later than it was made a change may be on its stream when watchers move, and in a rolling restart."""
MONGOD_TIMES, EVENT_TIMES = 1.1, 1.1
PROCESSES = ("service", "mongod", "nats")

Run = Mapping[str, Any]


class Rows:
    """The table while it is made."""

    def __init__(self, section: str) -> None:
        self._section = section
        self.table = [["", "to reach", "reached"]]
        self.targets: list[Target] = []

    def add(self, what: str, figure: str, asked: str = "", met: bool | None = None) -> None:
        """Add a row; with `met`, whether it is as asked."""
        self.table.append([what, asked, figure])
        if met is not None:
            self.targets.append(Target(f"{self._section}, {what}", figure, asked, met))

    def most(self, what: str, value: float, most: float | None = None, unit: str = "", note: str = "") -> None:
        """Add a row with a figure that is not to be larger than `most`."""
        figure = f"{value:.2f}{unit}{note}"
        if most is None:
            self.add(what, figure)
        else:
            self.add(what, figure, f"≤ {most:g}{unit}", value <= most)


def result_of(data: Run) -> Result:
    """The section's result."""
    rows = Rows("instances")
    _dies(rows, data["kills"])
    _moves(rows, data)
    _mongod(rows, data["mongod"])
    _drains(rows, data["drains"])
    if data["checked"]:
        changes = f"{sum(data['checked']):,}"
        rows.add("each change once and in order on its stream", f"{changes} of {changes}", "all", True)
    title = f"Instances: up to three share {data['watchers']:,} watchers of one database; {data['rate']} changes/s"
    return Result("instances", title, rows.table, _remarks(data), rows.targets, dict(data))


def _dies(rows: Rows, kills: Sequence[Run]) -> None:
    if not kills:
        return
    seconds, title = [each["seconds"] for each in kills], "kill -9, until the last of its watchers publishes again, s"
    rows.most(f"{title}: median of {len(kills)}", median_of(seconds), KILL_SECONDS)
    rows.most(f"{title}: p99", percentile(seconds, 99), KILL_P99_SECONDS)
    rows.most("kill -9, worst delay of a change, s", max(each["worst"] for each in kills))


def _moves(rows: Rows, data: Run) -> None:
    """What happens on purpose."""
    for runs, event, what, most in (
        (data["stops"], "SIGTERM", "until the last of its watchers has another owner", STOP_SECONDS),
        (data["joins"], "join", "from the start of the process until balanced", JOIN_SECONDS),
    ):
        if runs:
            seconds = [each["seconds"] for each in runs]
            worst = f" (worst of {len(seconds)}: {max(seconds):.2f})" if len(seconds) > 1 else ""
            rows.most(f"{event}, {what}, s", median_of(seconds), most, note=worst)
            rows.most(f"{event}, worst delay of a change, s", max(each["worst"] for each in runs), MOVE_SECONDS)
    if data["rolling"]:
        worst_delay = max(each["worst"] for each in data["rolling"])
        rows.most("rolling restart of three, worst delay of a change, s", worst_delay, ROLLING_SECONDS)


def _mongod(rows: Rows, runs: Sequence[Run]) -> None:
    """What more instances cost mongod: processor time per change, or per second where nothing is written."""
    for rate in dict.fromkeys(each["rate"] for each in runs):
        words, figure = (f"{rate} changes/s", "cpu_ms") if rate else ("nothing written", "cpu")
        used = {
            what: {
                name: median_of(each[figure][name] for each in runs if (each["what"], each["rate"]) == (what, rate))
                for name in ("mongod", "service")
            }
            for what in dict.fromkeys(each["what"] for each in runs if each["rate"] == rate)
        }
        one = used.pop("one")
        unit = "ms a change" if rate else "of a core"
        rows.add(f"{words}: mongod / service with one instance, {unit}", _spent(one, rate))
        for what, spent in used.items():
            title = f"{words}: mongod with {what}, against one"
            most = MONGOD_TIMES if rate else None
            rows.most(title, spent["mongod"] / max(one["mongod"], 1e-9), most, " ×", f" ({_spent(spent, rate)})")


def _spent(used: Mapping[str, float], rate: int) -> str:
    return " / ".join(f"{used[name]:.2f}" if rate else f"{used[name]:.1%}" for name in ("mongod", "service"))


def _drains(rows: Rows, runs: Sequence[Run]) -> None:
    """Two that drain against one."""
    found = {number: [each for each in runs if each["instances"] == number] for number in (1, 2)}
    if not all(found.values()):
        return
    rates = {number: median_of(each["rate"] for each in each_of) for number, each_of in found.items()}
    cpu = {
        number: {name: median_of(each["cpu_us"][name] for each in each_of) for name in PROCESSES}
        for number, each_of in found.items()
    }
    for number, title in ((1, "one drains"), (2, "two drain")):
        rows.add(f"{title}, events/s", f"{rates[number]:,.0f}")
        spent = " / ".join(f"{cpu[number][name]:,.1f}" for name in PROCESSES)
        rows.add(f"{title}, service / mongod / nats-server, µs an event", spent)
    rows.most("two drain against one, events/s", rates[2] / rates[1], unit=" ×")
    total = {number: sum(each.values()) for number, each in cpu.items()}
    parts = " / ".join(f"{cpu[2][name] / max(cpu[1][name], 1e-9):.2f}" for name in PROCESSES)
    what = "two drain against one, processor time per event of all processes"
    rows.most(what, total[2] / total[1], EVENT_TIMES, " ×", f" ({parts})")


def _remarks(data: Run) -> list[str]:
    remarks = [
        "A delay is from the acknowledgement of a change by a majority to its arrival at a JetStream push consumer.",
        "After a kill, each of its watchers has published again once the first change made after the kill has arrived.",
        "An instance reports every second. The others give its watchers away once they heard nothing for five seconds.",
        "Balanced: each instance is within 20 % of its share by weight, or one watcher from it, and none is moving.",
        "An instance that was stopped or killed joins again, which counts as a join.",
        "An idle instance owns no watcher: it was drained by hand. In brackets: mongod / all services.",
        f"Drains: {data['events']:,} changes wait, evenly spread, while all instances are frozen (SIGSTOP).",
        "In brackets behind the processor time of both that drain: service / mongod / nats-server.",
    ]
    busy = [*data["mongod"], *data["drains"]]
    if busy:
        remarks.append(f"Other programs took at most {max(run['others_share'] for run in busy):.0%} of the processors.")
    return remarks
