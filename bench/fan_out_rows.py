"""The rows of the fan-out section, from what was measured: what is asked, and what each version reached."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bench.report import Result, Target, median_of

OURS = "changewire"
DRAIN_TIMES = {"200": 0.6, "1,000": 0.25}
"""The part of one watcher's rate that so many are to drain at."""
DATABASE_TIMES = 0.9
MONGOD_TIMES, STEADY_TIMES = 2.0, 1.5
MOST, RATE = 1_000, 100
"""The watchers and the rate that the other targets are for."""
P99_MS = 15.0
IDLE_SERVICE, IDLE_MONGOD = 0.05, 0.03
MEMORY_MB = 160
ADD_SECONDS, START_SECONDS = 15.0, 8.0
NONE = "–"
"""What is not measured."""

Run = Mapping[str, Any]


class Rows:
    """The table while it is made. A row has a cell for each version; a target is judged on ours."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names
        self.table = [["", "to reach", *names]]
        self.targets: list[Target] = []

    def add(self, what: str, cells: Mapping[str, str], asked: str = "", met: bool | None = None) -> None:
        """Add a row, unless no version has a figure. `met`: whether ours is as asked; None where that is not judged."""
        if all(cells[name] == NONE for name in self.names):
            return
        self.table.append([what, asked, *(cells[name] for name in self.names)])
        if met is not None and cells.get(OURS, NONE) != NONE:
            self.targets.append(Target(f"fan-out, {what}", cells[OURS], asked, met))


def result_of(names: Sequence[str], data: Run) -> Result:
    """The section's result."""
    rows = Rows(names)
    _rates(rows, data)
    _costs(rows, data)
    _steady(rows, data)
    _idle(rows, data)
    _adding(rows, data)
    _fairness(rows, data)
    title = f"Fan-out: many watchers of one database; {data['events']:,} changes drained"
    return Result("fan-out", title, rows.table, _remarks(data), rows.targets, dict(data))


def watchers(number: int) -> str:
    """How many there are, in words."""
    return f"{number:,} watcher{'' if number == 1 else 's'}"


def kinds(data: Run) -> dict[str, str]:
    """What was drained, by the name that its rounds have, in words."""
    numbers = {f"{each:,}": watchers(each) for each in data["numbers"]}
    others = (run["what"] for run in data["drains"] if run["what"] not in numbers)
    return numbers | {what: f"1 watcher of {what}" for what in others}


def _of(data: Run, name: str, what: str) -> list[Run]:
    return [run for run in data["drains"] if (run["contender"], run["what"]) == (name, what)]


def _median(values: Iterable[float]) -> float | None:
    found = [*values]
    return median_of(found) if found else None


def _times(one: float | None, other: float | None) -> float | None:
    return None if one is None or not other else one / other


def _rates(rows: Rows, data: Run) -> None:
    """How fast a backlog is drained, beside one watcher's."""
    for part, words in (("from_start", "start to last message"), ("from_first", "first to last message")):
        for what, title in kinds(data).items():
            least = DRAIN_TIMES.get(what, DATABASE_TIMES if what.startswith("a ") else None)
            cells, ours = {}, None
            for name in rows.names:
                rate = _median(run[part] for run in _of(data, name, what))
                ratio = _times(rate, _median(run[part] for run in _of(data, name, "1")))
                cells[name] = _late(data, name, what) if rate is None else f"{rate:,.0f}"
                if rate is not None and ratio is not None and what != "1":
                    cells[name] += f" ({ratio:.2f} ×)"
                ours = ratio if name == OURS else ours
            judged = least is not None and part == "from_start" and len(_of(data, OURS, "1")) > 0
            rows.add(
                f"{title}: {words}, events/s",
                cells,
                f"≥ {least:g} ×" if least is not None and part == "from_start" else "",
                (ours or 0) >= (least or 0) if judged else None,
            )


def _costs(rows: Rows, data: Run) -> None:
    """What a drained event takes, and the memory."""
    for what, title in kinds(data).items():
        cells, ours = {}, None
        for name in rows.names:
            used = [
                _median(run["cpu_us"][each] for run in _of(data, name, what)) for each in ("service", "mongod", "nats")
            ]
            ratio = _times(used[1], _median(run["cpu_us"]["mongod"] for run in _of(data, name, "1")))
            cells[name] = NONE if None in used else " / ".join(f"{each or 0:,.1f}" for each in used)
            if ratio is not None and what != "1":
                cells[name] += f" (mongod {ratio:.1f} ×)"
            ours = ratio if name == OURS else ours
        asked = what == f"{MOST:,}"
        rows.add(
            f"{title}: draining, service / mongod / nats-server, µs an event",
            cells,
            f"mongod ≤ {MONGOD_TIMES:g} ×" if asked else "",
            ours <= MONGOD_TIMES if asked and ours is not None else None,
        )
    for what, title in kinds(data).items():
        peaks = {name: max((run["peak_mb"] for run in _of(data, name, what)), default=None) for name in rows.names}
        rows.add(
            f"{title}: draining, most memory, MB",
            {name: NONE if peak is None else f"{peak:.0f}" for name, peak in peaks.items()},
        )


def _steady(rows: Rows, data: Run) -> None:
    """What an event takes, and how long, at a steady rate."""
    runs = {(run["contender"], run["what"], run["rate"]): run for run in data["steady"]}
    for rate in dict.fromkeys(run["rate"] for run in data["steady"]):
        for what, words in kinds(data).items():
            title, judged = f"{words}: {rate:,} inserts/s", (what, rate) == (f"{MOST:,}", RATE)
            cells, ours = dict.fromkeys(rows.names, NONE), None
            for name in rows.names:
                if (run := runs.get((name, what, rate))) is None:
                    continue
                one = runs.get((name, "1", rate))
                used = [run["cpu_us"][each] / 1000 for each in ("service", "mongod", "nats")]
                cells[name] = " / ".join(f"{each:.2f}" for each in used)
                if one is not None and what != "1":
                    ratios = [run["cpu_us"][each] / max(one["cpu_us"][each], 1e-9) for each in ("service", "mongod")]
                    cells[name] += f" ({ratios[0]:.1f}, {ratios[1]:.1f} ×)"
                    ours = max(ratios) if name == OURS else ours
            rows.add(
                f"{title}, service / mongod / nats-server, ms an event",
                cells,
                f"each ≤ {STEADY_TIMES:g} ×" if judged else "",
                ours <= STEADY_TIMES if judged and ours is not None else None,
            )
            found = {name: runs.get((name, what, rate)) for name in rows.names}
            late = found.get(OURS)
            rows.add(
                f"{title}, p50 / p99, ms",
                {name: NONE if run is None else _latency(run) for name, run in found.items()},
                f"p99 ≤ {P99_MS:g} ms" if judged else "",
                late["percentiles"]["p99"] <= P99_MS if judged and late else None,
            )


def _latency(run: Run) -> str:
    return f"{run['percentiles']['p50']:.1f} / {run['percentiles']['p99']:.1f}"


def _idle(rows: Rows, data: Run) -> None:
    """What watchers cost that see nothing."""
    runs = {(run["contender"], run["what"]): run for run in data["idle"]}
    for what, words in kinds(data).items():
        found = {name: runs.get((name, what)) for name in rows.names}
        ours, judged = found.get(OURS), what == f"{MOST:,}"
        rows.add(
            f"{words}: idle, service / mongod / nats-server, of a core",
            {
                name: NONE
                if run is None
                else " / ".join(f"{run['cpu'][each]:.1%}" for each in ("service", "mongod", "nats"))
                for name, run in found.items()
            },
            f"≤ {IDLE_SERVICE:.0%} / {IDLE_MONGOD:.0%}" if judged else "",
            ours["cpu"]["service"] <= IDLE_SERVICE and ours["cpu"]["mongod"] <= IDLE_MONGOD
            if judged and ours
            else None,
        )
        rows.add(
            f"{words}: idle, memory, MB",
            {name: NONE if run is None else f"{run['rss_mb']:.0f}" for name, run in found.items()},
            f"≤ {MEMORY_MB} MB" if judged else "",
            ours["rss_mb"] <= MEMORY_MB if judged and ours else None,
        )


def _adding(rows: Rows, data: Run) -> None:
    """How long it takes to add them, and to start with them."""
    most = max(data["numbers"])
    for as_list, words in ((False, "one by one"), (True, "as one list")):
        runs = {
            run["contender"]: run["seconds"]
            for run in data["added"]
            if run["watchers"] == most and run.get("list", False) is as_list
        }
        cells, judged = {}, most == MOST and not as_list
        for name in rows.names:
            if (seconds := runs.get(name)) is not None:
                cells[name] = f"{seconds[0]:.1f} (all RUNNING after {seconds[1]:.1f})"
            elif as_list and ["list", name] in data["refused"]:
                cells[name] = "refused"
            else:
                cells[name] = _bound(data) if name in runs else NONE
        ours = runs.get(OURS)
        rows.add(
            f"{watchers(most)} added over HTTP {words}, s",
            cells,
            f"≤ {ADD_SECONDS:g} s" if judged else "",
            (ours is not None and ours[0] <= ADD_SECONDS) if judged else None,
        )
    for what, words in kinds(data).items():
        started = {run["contender"]: run["seconds"] for run in data["started"] if run["what"] == what}
        ours, judged = started.get(OURS), what == f"{MOST:,}"
        rows.add(
            f"{words}: process start to all RUNNING, s",
            {
                name: NONE if name not in started else _bound(data) if started[name] is None else f"{started[name]:.1f}"
                for name in rows.names
            },
            f"≤ {START_SECONDS:g} s" if judged else "",
            (ours is not None and ours <= START_SECONDS) if judged else None,
        )


def _fairness(rows: Rows, data: Run) -> None:
    """What the others wait while one collection is written as fast as it goes."""
    for what in dict.fromkeys(run["what"] for run in data["fair"]):
        cells = dict.fromkeys(rows.names, NONE)
        for run in data["fair"]:
            if run["what"] == what:
                cells[run["contender"]] = _latency(run)
                if run["hot_written"]:
                    cells[run["contender"]] += f" ({run['hot_written'] / run['hot_seconds']:,.0f}/s there)"
        rows.add(f"20 watchers, 5 inserts/s each, {what}: p50 / p99, ms", cells)


def _bound(data: Run) -> str:
    return f"> {data['patience']:g}"


def _late(data: Run, name: str, what: str) -> str:
    """Why there is no rate."""
    if what.startswith("a ") and ["database", name] in data["refused"]:
        return "refused"
    return f"no end after {data['patience']:g} s" if [name, what] in data["too_slow"] else NONE


def _remarks(data: Run) -> list[str]:
    remarks = [
        "Rates are by the server's times; processor time is that from the start of the process to the last message.",
        "In brackets: how many times one watcher's.",
        "Each stream held each event once. The changes are written in turns over the collections, a few at a time.",
        f"No step takes longer than {data['patience']:g} s: what a version does not end by then, its row says.",
        "To write and publish a hot collection takes processors from all: how much, the rows of another database show.",
    ]
    for run in data["idle"]:
        if run["reads"]:
            how = ", ".join(f"{number:,} {reads}" for reads, number in run["reads"].items())
            remarks.append(f"{run['contender']}, {kinds(data)[run['what']]}: change stream {how}.")
    if any(what == "database" for what, _ in data["refused"]):
        remarks.append("Refused: that version has no watcher of a whole database.")
    if any(what == "list" for what, _ in data["refused"]):
        remarks.append("Refused: that version takes no list.")
    busy = [*data["drains"], *data["steady"], *data["idle"], *data["fair"]]
    if busy:
        remarks.append(f"Other programs took at most {max(run['others_share'] for run in busy):.0%} of the processors.")
    return remarks
