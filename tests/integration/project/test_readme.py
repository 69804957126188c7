"""The README's commands and the walk through, word for word, on the demo that they start from."""

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from app.devservers.servers import free_port

ROOT = Path(__file__).parents[3]
PLACES = {
    "http": r"HTTP interface\s+http://(\S+)/",
    "nats": r"nats-server \S+\s+nats://(\S+)",
    "mongo": r"mongod \S+\s+mongodb://(\S+)/",
}


class Demo:
    """A demo under way, and a shell in which the pages' commands meet its ports."""

    def __init__(self, http: str, nats: str, mongo: str) -> None:
        places = {"127.0.0.1:8080": http, "127.0.0.1:4322": nats, "127.0.0.1:27117": mongo}
        self._replace = {**places, ".venv/bin/python": sys.executable}

    def here(self, command: str) -> str:
        """A command of a page, with the places of this demo."""
        for written, real in self._replace.items():
            command = command.replace(written, real)
        return command

    async def shell(self, command: str, until: str | None = None) -> str:
        """Run a command as it stands in the page; end it as Ctrl-C would once `until` was printed."""
        command = self.here(command)
        process = await asyncio.create_subprocess_exec(
            "bash", "-c", command, cwd=ROOT, stdout=asyncio.subprocess.PIPE, start_new_session=True
        )
        assert process.stdout is not None
        printed = ""
        async with asyncio.timeout(30):
            while line := (await process.stdout.read(65536)).decode():
                printed += line
                if until is not None and until in printed:
                    os.killpg(process.pid, signal.SIGINT)
                    until = None
            await process.wait()
        return printed


@pytest_asyncio.fixture
async def demo() -> AsyncIterator[Demo]:
    found: dict[str, str] = {}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "app", "demo", "--port", "0", "--rate", "20", cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    async with asyncio.timeout(60):
        while b"Messages as" not in (line := await process.stdout.readline()):
            assert line, "the demo ended"
            for place, pattern in PLACES.items():
                if match := re.search(pattern, line.decode()):
                    found[place] = match.group(1)
    reading = asyncio.create_task(process.stdout.read(), name="demo output")
    yield Demo(**found)
    process.send_signal(signal.SIGINT)
    async with asyncio.timeout(30):
        assert await process.wait() == 0
    await reading


def commands(page: str) -> list[str]:
    return re.findall(r"```sh\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)


async def test_the_walk_through_does_what_it_says(demo: Demo) -> None:
    add, watch, pause_and_lag, rewind, resume_and_look, remove = commands("docs/walkthrough.md")
    added = json.loads(await demo.shell(add))
    assert (added["name"], added["sink"]["stream"]) == ("new-orders", "NEW_ORDERS")
    seen = await demo.shell(watch, until="NEW_ORDERS.insert 5 ")
    assert [line.split()[:2] for line in seen.splitlines()[:5]] == [["NEW_ORDERS.insert", str(n)] for n in range(1, 6)]
    paused, lag = pause_and_lag.strip().splitlines()
    assert json.loads(await demo.shell(paused))["status"]["state"] == "PAUSED"
    assert json.loads(await demo.shell(lag))["seconds"] is not None
    moved = json.loads(await demo.shell(rewind))
    assert moved["epoch"] == 1
    resume, status, health = resume_and_look.strip().splitlines()
    await demo.shell(resume)
    async with asyncio.timeout(20):
        while json.loads(await demo.shell(status))["state"] != "RUNNING":
            await asyncio.sleep(0.1)
    assert json.loads(await demo.shell(health))["status"] == "UP"
    assert await demo.shell(remove) == ""
    assert "no watcher new-orders" in await demo.shell(status)


@pytest.mark.long
@pytest.mark.timeout(200)
async def test_a_snapshot_is_complete_though_the_service_is_killed_in_its_middle(demo: Demo, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "snapshots.md").read_text().partition("## Try it")[2]
    fill, serve, take, kill, finish, copy, look = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    begun = """
        until curl -s http://127.0.0.1:8090/watchers/items/status | grep -q '"documents":[1-9]'; do sleep 0.1; done
    """
    copied = f"""
        ( {copy.strip()} > copied.txt & until grep "is complete" copied.txt; do sleep 0.2; done; kill $! )
    """
    script = demo.here(f"{fill}\n{serve}\n{take}\n{begun}\n{kill}\n{finish}\n{copied}\n{look}\nwait")
    for written, real in {
        "127.0.0.1:8090": f"127.0.0.1:{free_port()}",
        "examples/": f"{ROOT}/examples/",
        "100_000": "20_000",  # as much as a busy machine does in a while
        "99_999": "19_999",
        "99999": "19999",
    }.items():
        assert written in script
        script = script.replace(written, real)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CHANGEWIRE_")}
    process = await asyncio.create_subprocess_exec(
        "bash", "-c", script, cwd=tmp_path, env={**environment, "PYTHONPATH": str(ROOT)},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    try:
        async with asyncio.timeout(150):
            printed = (await process.communicate())[0].decode()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert "20000 of 20000 documents came" in printed, printed
    assert "(20000,)\n('changed meanwhile',)" in printed, printed
    assert '"snapshot":{"state":"done"' in printed, printed
    assert (tmp_path / "service.log").read_text().count('"event": "watcher_opened"') == 2


async def test_the_watcher_of_the_readme_is_one_and_its_port_is_the_demos(demo: Demo) -> None:
    two, servers, add, *_ = commands("README.md")
    assert two.split() == ["make", "demo", "make", "test"]
    assert [line.split()[:2] for line in servers.splitlines()[2:]] == [
        [".venv/bin/changewire", "doctor"],
        [".venv/bin/changewire", "serve"],
    ]
    asked = add.replace("http://127.0.0.1:8080/watchers", "http://127.0.0.1:8080/watchers?dry_run=true")
    answer = json.loads(await demo.shell(asked))  # the demo has a watcher of that name on that collection
    assert "orders" in answer["detail"], answer
    renamed = asked.replace('"name": "orders"', '"name": "more"').replace('"orders"}', '"more"}')
    assert json.loads(await demo.shell(renamed))["sink"]["stream"] == "MORE"


@pytest.mark.long
async def test_three_instances_on_one_machine_share_the_watchers_and_replace_one_that_is_killed(
    mongo_uri: str, nats_url: str, unique: str, tmp_path: Path
) -> None:
    *_, start, kill = commands("README.md")
    look, _ = kill.strip().splitlines()
    ports = {f"127.0.0.1:{port}": f"127.0.0.1:{free_port()}" for port in (8081, 8082, 8083)}
    add = "127.0.0.1:8083"
    waiting = f"""
        until_states() {{ until {look} --json 2> /dev/null | grep -o '"state": "[a-z]*"' | sort | uniq -c | xargs |
            grep -q "$1"; do sleep 0.2; done; }}
        until_states '3 state: active'
        for name in a b c d e f; do curl -sf http://{add}/watchers -H 'Content-Type: application/json' -d '{{"name":
            "'$name'", "source": {{"database": "db_{unique}", "collection": "'$name'"}}, "sink":
            {{"stream": "{unique}-'$name'"}}}}' > /dev/null || exit 1; done
    """
    handed_over = f"until {look} 2> /dev/null | grep -Eq '^one +gone +0 '; do sleep 0.2; done"
    gone = f"until_states '2 state: active 1 state: gone'\n{handed_over}"
    script = f"{start}\n{waiting}\n{kill}\n{gone}\n{look}\nkill %2 %3; wait"
    for written, real in {**ports, ".venv/bin/changewire": f"{sys.executable} -m app"}.items():
        script = script.replace(written, real)
    settings = {"MONGO_URI": mongo_uri, "NATS_URL": nats_url, "CHANGEWIRE_STATE_DB": f"state_{unique}"}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CHANGEWIRE_")}
    process = await asyncio.create_subprocess_exec(
        "bash", "-c", script, cwd=tmp_path, env={**environment, **settings, "PYTHONPATH": str(ROOT)},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    try:
        async with asyncio.timeout(90):
            printed = (await process.communicate())[0].decode()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    rows = [line.split() for line in printed.splitlines() if line.startswith(("one", "two", "three"))]
    before, after = ({row[0].strip("*"): (row[1], int(row[2])) for row in part} for part in (rows[:3], rows[3:]))
    assert {state for state, _ in before.values()} == {"active"}, printed
    assert after["one"] == ("gone", 0), printed
    assert sum(count for _, count in after.values()) == 6, printed
    for name in ("two", "three"):
        assert (tmp_path / f"{name}.log").read_text().count('"event": "stopped"') == 1


def test_a_taken_port_is_answered_as_the_demo_answers_it() -> None:
    assert 'make demo ARGS="--port 0"' in " ".join((ROOT / "docs" / "walkthrough.md").read_text().split())


async def test_a_demo_that_ends_by_itself_has_counted_every_write_once_and_in_order() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "app", "demo", "--port", "0", "--rate", "200", "--for", "3", cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(60):
        printed, _ = await process.communicate()
    assert process.returncode == 0, printed.decode()
    assert "every one once, in order" in printed.decode()
