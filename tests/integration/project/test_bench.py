"""The benchmark runs, whichever the contender, and refuses streams that do not hold what they must."""

import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import nats
import nats.errors
import pytest

from app.devservers.nats_cluster import MEMBERS, NatsCluster
from bench import check, open_pages
from bench.stage import Incomplete, Stage
from tests.service import until

ROOT = Path(__file__).parents[3]


def bench(results: Path, *arguments: str) -> dict[str, Any]:
    """Run it as a person does; the sections of what it wrote down."""
    done = subprocess.run(
        [sys.executable, "-m", "bench", "--json", str(results), *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=580,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    sections: dict[str, Any] = json.loads(results.read_text())["sections"]
    return sections


@pytest.mark.long
@pytest.mark.timeout(600)
def test_an_external_program_is_measured_beside_changewire_and_the_floors_below_it(tmp_path: Path) -> None:
    """One of them is the one-by-one baseline, named on the command line as anybody's program would be."""
    sections = bench(
        tmp_path / "run.json",
        *("--only", "drain,floors", "--documents", "inserts", "--rounds", "1", "--events", "300"),
        *("--floor-events", "300", "--floor-rounds", "1", "--contenders", "changewire"),
        *("--peer", f"mine={sys.executable} -m bench.single", "--peer-events", "60"),
    )
    rounds = sections["drain"]["data"]["rounds"]
    assert [(each["contender"], each["events"]) for each in rounds] == [("changewire", 300), ("mine", 60)]
    assert all(each["events_per_second"] > 0 and each["peak_mb"] > 0 for each in rounds)
    assert rounds[0]["way"] == sections["floors"]["data"]["floors"]["inserts"]["mode"]
    assert rounds[0]["bytes_per_message"] > 1400
    floors = sections["floors"]["data"]["floors"]["inserts"]["floors"]
    assert [each for each in floors if each != "encoding, native"] == ["reading", "encoding, python", "publishing"]
    assert all(each["events_per_second"] > 0 for each in floors.values())
    assert "inserts" in sections["costs"]["data"]


@pytest.mark.long
@pytest.mark.timeout(600)
def test_streams_with_three_replicas_are_drained_by_this_version_and_another(tmp_path: Path) -> None:
    sections = bench(
        tmp_path / "run.json",
        *("--only", "replicas", "--contenders", "changewire,mq-bridge", "--tree", f"before={ROOT}"),
        *("--replica-rounds", "1", "--replica-events", "300"),
    )
    rounds = sections["replicas"]["data"]["rounds"]
    assert [each["contender"] for each in rounds] == ["changewire", "mq-bridge", "before"]
    assert sections["replicas"]["data"]["ratios"].keys() == {"mq-bridge", "before"}


@pytest.mark.long
@pytest.mark.timeout(600)
def test_many_watchers_are_measured_beside_one_and_beside_one_of_the_whole_database(tmp_path: Path) -> None:
    sections = bench(
        tmp_path / "run.json",
        *("--only", "fan-out", "--contenders", "changewire", "--fan-out", "1,3", "--fan-out-events", "90"),
        *("--fan-out-rounds", "1", "--fan-out-rates", "50", "--fan-out-seconds", "1"),
    )
    data = sections["fan-out"]["data"]
    database = "a database of 3 collections"
    assert [(run["what"], run["events"]) for run in data["drains"]] == [("1", 90), ("3", 90), (database, 90)]
    assert all(run["from_first"] > run["from_start"] > 0 for run in data["drains"])
    assert [run["what"] for run in data["idle"]] == ["1", "3", database]
    assert [run["what"] for run in data["steady"]] == ["1", "3", database]
    assert [run["watchers"] for run in data["added"]] == [1, 3, 3]
    assert data["added"][-1]["list"]
    assert [run["hot_written"] > 0 for run in data["fair"]] == [False, True, True, True, True]
    assert data["refused"] == data["too_slow"] == []


@pytest.mark.long
@pytest.mark.timeout(600)
def test_instances_are_killed_stopped_and_joined_while_changes_go_on(tmp_path: Path) -> None:
    sections = bench(
        tmp_path / "run.json",
        *("--only", "instances", "--quick", "--instances-watchers", "6", "--kills", "1", "--instances-events", "300"),
    )
    data = sections["instances"]["data"]
    assert [(run["name"], run["of"]) for run in data["joins"]] == [
        ("two", 2), ("three", 3), ("three", 3), ("one", 3),
    ]  # fmt: skip
    assert [(run["name"], run["watchers"] > 0) for run in data["stops"]] == [("three", True)]
    assert [(run["name"], run["watchers"] > 0) for run in data["kills"]] == [("one", True)]
    assert data["kills"][0]["worst"] > 1
    assert len(data["rolling"]) == 1
    kinds = ["one", "two", "one and an idle one"]
    assert [(run["what"], run["rate"]) for run in data["mongod"]] == [
        (kind, rate) for kind in kinds for rate in (200, 0)
    ]
    assert [(run["instances"], run["rate"] > 0) for run in data["drains"]] == [(1, True), (2, True)]
    assert all(changes > 600 for changes in data["checked"])


@pytest.mark.skipif(open_pages.browser_program() is None, reason="there is no Chromium here: apt-get install chromium")
@pytest.mark.long
@pytest.mark.timeout(600)
def test_open_pages_are_measured_scrolled_and_searched(tmp_path: Path) -> None:
    sections = bench(
        tmp_path / "run.json", *("--only", "page", "--quick", "--page-watchers", "3", "--page-seconds", "1")
    )
    data = sections["page"]["data"]
    assert {count: len(used) for count, used in data["used"].items()} == {"0": 1, "1": 1, "4": 1}
    assert len(data["frames"]) == open_pages.STEPS
    assert min(data["filter"]) > 0


@pytest.mark.long
@pytest.mark.timeout(600)
def test_snapshots_are_measured_beside_drains_changes_and_kills(tmp_path: Path) -> None:
    sections = bench(tmp_path / "run.json", *("--only", "snapshot", "--quick", "--snapshot-documents", "1000"))
    data = sections["snapshot"]["data"]
    assert [run["rows"] for run in data["runs"]] == [1000]
    assert [run["rows"] >= 1000 and len(run["delays"]["during"]) > 0 for run in data["beside"]] == [True, True]
    assert len(data["drains"]) == len(data["kills"]) == 1
    assert [run["rows"] for run in data["others"]] == [1600, 50, 4, 4, 400, 800]
    assert [each[0] >= 1000 for each in data["checked"]] == [True, True, True]


async def test_a_cluster_keeps_what_it_stores_over_a_stop() -> None:
    cluster = NatsCluster("kept")
    try:
        await cluster.start()
        assert len(set(cluster.pids)) == MEMBERS
        client = await nats.connect(cluster.url.split(","))
        await client.jetstream().add_stream(name="KEPT", subjects=["KEPT.*"], num_replicas=MEMBERS)
        await client.jetstream().publish("KEPT.insert", b"1")
        await client.close()
        await cluster.stop()
        await cluster.start()
        client = await nats.connect(cluster.url.split(","))

        async def held() -> int:
            with suppress(nats.errors.Error, TimeoutError):  # the stream has no leader yet
                return (await client.jetstream().stream_info("KEPT")).state.messages
            return 0

        assert await until(held, "the stream is there again") == 1
        await client.close()
    finally:
        await cluster.close()


async def test_streams_that_lack_or_repeat_a_change_are_refused() -> None:
    async with Stage() as stage:
        places = stage.spread("check", 2)
        for place in places:
            await stage.create_stream(place)
        stream = stage.bus.jetstream()
        for number in range(6):
            await stream.publish(f"{places[number % 2].stream}.insert", b'{"number": %d}' % number)
        assert await check.exactly(stage, places, 6) == 6 * len(b'{"number": 0}')
        whole, seconds = await stage.stretch(places, 0)
        rest, fewer = await stage.stretch(places, 0.5)
        assert (whole, rest) == (4, 2)
        assert 0 < fewer < seconds
        assert await check.exactly(stage, places, 6, ordered=True) > 0
        with pytest.raises(Incomplete, match="1 have no message, and 0 messages are too many"):
            await check.exactly(stage, places, 7)
        await stream.publish(f"{places[0].stream}.insert", b'{"number": 3}')
        with pytest.raises(Incomplete, match="0 have no message, and 1 messages are too many"):
            await check.exactly(stage, places, 6)
        with pytest.raises(Incomplete, match="1 have no message, and 1 messages are too many"):
            await check.exactly(stage, places, 7)


async def test_streams_whose_changes_are_out_of_order_are_refused_where_order_is_asked_for() -> None:
    async with Stage() as stage:
        place = stage.place("order")
        await stage.create_stream(place)
        for number in (0, 2, 1):
            await stage.bus.jetstream().publish(f"{place.stream}.insert", b'{"number": %d}' % number)
        await check.exactly(stage, [place], 3)
        with pytest.raises(Incomplete, match="1 came before one that was made earlier"):
            await check.exactly(stage, [place], 3, ordered=True)
