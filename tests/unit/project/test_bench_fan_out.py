"""The rows of the benchmark's fan-out section: what is judged, and what stands where nothing could be measured."""

from pathlib import Path
from typing import Any

from bench import __main__, fan_out_rows, fleet, sizing, write_docs
from bench.fan_out_rows import OURS, result_of

OLDER = "before"


def drained(contender: str, what: str, rate: float, mongod: float = 10.0) -> dict[str, Any]:
    cpu = {"service": 8.0, "mongod": mongod, "nats": 12.0}
    return {
        "contender": contender, "what": what, "from_start": rate, "from_first": rate * 2, "cpu_us": cpu,
        "peak_mb": 90.0, "others_share": 0.01,
    }  # fmt: skip


def steady(contender: str, watchers: int, p99: float, service: float) -> dict[str, Any]:
    return {
        "contender": contender, "what": f"{watchers:,}", "rate": 100,
        "percentiles": {"p50": 1.0, "p99": p99}, "cpu_us": {"service": service, "mongod": 2000.0, "nats": 300.0},
        "others_share": 0.02,
    }  # fmt: skip


def measured(**lists: list[Any]) -> dict[str, Any]:
    """What a run of 1, 200 and 1,000 watchers has found, with what is given."""
    names = ("drains", "added", "started", "idle", "steady", "fair", "refused", "too_slow")
    return {"numbers": [1, 200, 1000], "events": 30_000, "patience": 120} | {
        name: lists.get(name, []) for name in names
    }


def row(data: dict[str, Any], what: str, *names: str) -> list[str]:
    (found,) = [each[1:] for each in result_of(names or (OURS,), data).table if each[0] == what]
    return found


def verdicts(data: dict[str, Any]) -> dict[str, bool]:
    return {each.what.removeprefix("fan-out, "): each.met for each in result_of((OURS, OLDER), data).targets}


def test_many_watchers_are_judged_by_one_watchers_rate() -> None:
    drains = [
        drained(OURS, "1", 1000.0), drained(OURS, "1", 3000.0), drained(OURS, "200", 1400.0),
        drained(OURS, "1,000", 300.0, mongod=20.0), drained(OURS, "a database of 1,000 collections", 1800.0),
        drained(OLDER, "1", 2000.0), drained(OLDER, "200", 100.0),
    ]  # fmt: skip
    data = measured(drains=drains)
    what = "200 watchers: start to last message, events/s"
    assert row(data, what, OURS, OLDER) == ["≥ 0.6 ×", "1,400 (0.70 ×)", "100 (0.05 ×)"]
    assert verdicts(data) == {
        what: True,
        "1,000 watchers: start to last message, events/s": False,
        "1 watcher of a database of 1,000 collections: start to last message, events/s": True,
        "1,000 watchers: draining, service / mongod / nats-server, µs an event": True,
    }


def test_what_was_too_slow_or_refused_says_so_and_misses_its_target() -> None:
    database = "a database of 1,000 collections"
    data = measured(
        drains=[drained(OURS, "1", 1000.0), drained(OLDER, "1", 1000.0), drained(OLDER, database, 900.0)],
        added=[{"contender": OURS, "watchers": 1000, "seconds": None, "list": False}],
        too_slow=[[OURS, "1,000"]],
        refused=[["database", OURS], ["list", OURS], ["list", OLDER]],
    )
    most = "1,000 watchers: start to last message, events/s"
    assert row(data, most, OURS, OLDER) == ["≥ 0.25 ×", "no end after 120 s", "–"]
    assert row(data, f"1 watcher of {database}: start to last message, events/s", OURS, OLDER)[1] == "refused"
    assert row(data, "1,000 watchers added over HTTP one by one, s") == ["≤ 15 s", "> 120"]
    assert row(data, "1,000 watchers added over HTTP as one list, s", OURS, OLDER) == ["", "refused", "refused"]
    assert verdicts(data)[most] is False
    assert verdicts(data)["1,000 watchers added over HTTP one by one, s"] is False


def test_the_slower_of_service_and_mongod_decides_at_a_steady_rate() -> None:
    data = measured(steady=[steady(OURS, 1, 3.0, 2000.0), steady(OURS, 1000, 14.0, 3200.0)])
    cost = "1,000 watchers: 100 inserts/s, service / mongod / nats-server, ms an event"
    assert row(data, cost) == ["each ≤ 1.5 ×", "3.20 / 2.00 / 0.30 (1.6, 1.0 ×)"]
    assert verdicts(data) == {cost: False, "1,000 watchers: 100 inserts/s, p50 / p99, ms": True}


def test_fairness_shows_how_fast_the_hot_collection_was_written() -> None:
    alone = steady(OURS, 21, 4.0, 2000.0) | {"what": "alone", "hot_written": 0, "hot_seconds": 10.0}
    beside = alone | {"what": "beside a hot collection", "hot_written": 50_000}
    data = measured(fair=[alone, beside])
    assert row(data, "20 watchers, 5 inserts/s each, alone: p50 / p99, ms") == ["", "1.0 / 4.0"]
    beside_it = "20 watchers, 5 inserts/s each, beside a hot collection: p50 / p99, ms"
    assert row(data, beside_it) == ["", "1.0 / 4.0 (5,000/s there)"]


def test_an_oplog_that_was_cut_off_gives_no_figure() -> None:
    assert fleet.grown(100, 300, 10) == 20
    assert fleet.grown(300, 100, 10) is None


def test_the_targets_are_for_numbers_that_are_measured() -> None:
    numbers = __main__.parse([]).fan_out
    assert {f"{each:,}" for each in numbers} >= fan_out_rows.DRAIN_TIMES.keys()
    assert fan_out_rows.MOST in numbers
    assert fan_out_rows.RATE in __main__.parse([]).fan_out_rates


def test_the_sizing_page_has_what_was_measured_and_nothing_else() -> None:
    used = {"service": 0.02, "mongod": 0.3, "nats": 0.001}
    idle = [
        {"contender": OURS, "what": what, "cpu": used, "rss_mb": mb, "oplog_bytes_per_second": 80.0, "reads": {}}
        for what, mb in (("1", 70.0), ("1,000", 169.9))
    ]
    ones = steady(OURS, 1, 3.0, 2000.0) | {"rss_mb": 71.0, "oplog_bytes": None}
    data = measured(
        idle=[*idle, idle[0] | {"contender": OLDER}],
        steady=[ones],
        drains=[drained(OURS, "1", 1000.0), drained(OLDER, "1", 7.0)],
        started=[{"contender": OURS, "what": "1,000", "seconds": 7.25}],
    )
    lines = sizing.generated(data).splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| 1")]
    assert rows == [
        ["1 watcher", "none", "2.0%", "30%", "0.1%", "70", "", ""],
        ["1,000 watchers", "none", "2.0%", "30%", "0.1%", "170", "", ""],
        ["1 watcher", "100", "20%", "20%", "3.0%", "71", "1.0 / 3.0", ""],
        ["1 watcher", "a backlog: 2,000", "0.8%", "1.0%", "1.2%", "90", "", ""],
    ]
    assert "- A watcher takes 102 kB of memory (1,000 against 1, idle)." in lines
    assert "- While 1,000 watchers idle, 80 bytes a second are written to the oplog." in lines
    assert "- From the start of the process until all run, 1,000 watchers: 7.2 s." in lines


def test_the_sizing_page_has_its_markers() -> None:
    page = (Path(__file__).parents[3] / "docs" / "sizing.md").read_text()
    assert "| new |" in write_docs.put(page, "| new |")
