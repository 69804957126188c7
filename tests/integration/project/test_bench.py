"""The benchmark runs, whichever the contender, and refuses streams that do not hold what they must."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench import check
from bench.stage import Incomplete, Stage

ROOT = Path(__file__).parents[3]


@pytest.mark.timeout(180)
def test_an_external_program_is_measured_beside_changewire_and_its_limit(tmp_path: Path) -> None:
    """One of them is the one-by-one baseline, named on the command line as anybody's program would be."""
    results = tmp_path / "run.json"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "bench", "--only", "drain", "--rounds", "1", "--events", "300"),
            *("--contenders", "changewire,limit", "--peer", f"mine={sys.executable} -m bench.single"),
            *("--json", str(results)),
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=170,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rounds = json.loads(results.read_text())["sections"]["drain"]["data"]["rounds"]
    assert [(each["contender"], each["events"]) for each in rounds] == [
        ("changewire", 300),
        ("limit", 300),
        ("mine", 60),
    ]
    assert all(each["events_per_second"] > 0 and each["peak_mb"] > 0 for each in rounds)
    assert rounds[0]["bytes_per_message"] > rounds[1]["bytes_per_message"] > 1400


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
        with pytest.raises(Incomplete, match="1 have no message, and 0 messages are too many"):
            await check.exactly(stage, places, 7)
        await stream.publish(f"{places[0].stream}.insert", b'{"number": 3}')
        with pytest.raises(Incomplete, match="0 have no message, and 1 messages are too many"):
            await check.exactly(stage, places, 6)
        with pytest.raises(Incomplete, match="1 have no message, and 1 messages are too many"):
            await check.exactly(stage, places, 7)
