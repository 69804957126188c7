"""Signals at any moment of a command: one line and a plain exit code, no traceback, nothing left behind."""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import select
import signal
import subprocess
import sys
import termios
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from app.devservers.servers import free_port
from tests.service import is_stopped, until

ROOT = Path(__file__).parents[3]
SERVERS = {"mongod", "nats-server"}

Start = Callable[..., "Child"]


class Child:
    """A command as a process of its own, with a directory for temporary files of its own."""

    def __init__(self, workdir: Path, *command: str, options: tuple[str, ...] = (), **popen: object) -> None:
        self.temporary = workdir / "tmp"
        self.temporary.mkdir(exist_ok=True)
        self.port = free_port()
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("CHANGEWIRE_")}
        environment = {
            **inherited,
            "PYTHONPATH": str(ROOT),
            "TMPDIR": str(self.temporary),
            "SERVER_ADDR": f"127.0.0.1:{self.port}",
            # Nobody is there: what the service waits for.
            "MONGO_URI": f"mongodb://127.0.0.1:{free_port()}/?replicaSet=rs0",
            "NATS_URL": f"nats://127.0.0.1:{free_port()}",
        }
        pipes: dict[str, object] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **popen}
        # Unbuffered: what is left after `printed` is read by another way, which would begin in the middle of a line.
        self.process: subprocess.Popen[bytes] = subprocess.Popen(
            [sys.executable, *options, "-m", "app", *command], cwd=workdir, env=environment, bufsize=0, **pipes  # type: ignore[call-overload]
        )  # fmt: skip

    async def printed(self, stream: str, pattern: str) -> None:
        """Read lines of standard output or error until one of them matches."""
        pipe = getattr(self.process, stream)
        async with asyncio.timeout(60):
            while not re.search(pattern, (line := await asyncio.to_thread(pipe.readline)).decode()):
                assert line, f"it ended before {pattern}"

    async def ended(self) -> tuple[int, str]:
        """Wait for the end; the exit code, and what it said on standard error."""
        _, error = await asyncio.to_thread(self.process.communicate, None, 60)
        lines = [each for each in error.decode().splitlines() if not each.startswith("import time:")]
        return self.process.returncode, "\n".join(lines)

    def servers(self) -> dict[str, int]:
        """A descriptor of each server's process, by the program's name; the caller closes them."""
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        found = {Path(f"/proc/{each}/comm").read_text().strip(): os.pidfd_open(int(each)) for each in children}
        assert set(found) == SERVERS
        return found


@pytest_asyncio.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    children: list[Child] = []
    # A shell that starts the tests in the background has them ignore these, and a child would do so too.
    ignored = [each for each in (signal.SIGINT, signal.SIGQUIT) if signal.getsignal(each) is signal.SIG_IGN]
    for each in ignored:
        signal.signal(each, signal.SIG_DFL)

    def make(*command: str, **options: object) -> Child:
        children.append(Child(tmp_path, *command, **options))  # type: ignore[arg-type]
        return children[-1]

    yield make
    for each in ignored:
        signal.signal(each, signal.SIG_IGN)
    for child in children:
        child.process.kill()
        await asyncio.to_thread(child.process.wait)
        for pipe in (child.process.stdout, child.process.stderr):
            if pipe is not None:
                pipe.close()


def pid_of(descriptor: int) -> int:
    found = re.search(r"^Pid:\s+(\d+)$", Path(f"/proc/self/fdinfo/{descriptor}").read_text(), re.MULTILINE)
    assert found is not None
    return int(found.group(1))


def all_gone(servers: dict[str, int]) -> bool:
    try:
        return all(select.select([each], [], [], 10)[0] for each in servers.values())
    finally:
        for each in servers.values():
            os.close(each)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGQUIT])
async def test_signal_while_http_is_imported_stops_the_watchers_that_run_already(
    start: Start, number: signal.Signals
) -> None:
    child = start("serve", options=("-X", "importtime"))
    await child.printed("stderr", r"\| +fastapi\n")
    child.process.send_signal(number)
    assert await child.ended() == (0, "")


@pytest.mark.long
@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
@pytest.mark.parametrize(
    ("command", "module"),
    # The moment is that at which the module has been imported. It does not pass: with a pipe as small as this the
    # process cannot say what it imports next, and waits.
    [("serve", "concurrent"), ("serve", "asyncio"), ("serve", "pydantic_settings"), ("demo", "typer"),
     ("demo", "asyncio"), ("demo", "app.devservers.servers"), ("demo", "app.config.settings")],
)  # fmt: skip
async def test_signal_before_all_is_up_is_one_line(
    start: Start, command: str, module: str, number: signal.Signals, code: int, word: str
) -> None:
    port = ("--port", "0") if command == "demo" else ()
    child = start(command, *port, options=("-X", "importtime"), pipesize=4096)
    await child.printed("stderr", rf"\| +{re.escape(module)}\n")
    child.process.send_signal(number)
    got, said = await child.ended()
    assert got == code, said
    assert re.fullmatch(rf"changewire: {word}( before the whole demo was up)?", said)
    assert list(child.temporary.iterdir()) == []


async def test_second_ctrl_c_ends_the_service_at_once(start: Start) -> None:
    child = start("serve")
    await child.printed("stdout", '"listening"')
    # A request that never ends keeps the first stop from being over too soon.
    reader, writer = await asyncio.open_connection("127.0.0.1", child.port)
    head = (
        f"POST /watchers HTTP/1.1\r\nHost: 127.0.0.1:{child.port}\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n"
    )
    writer.write(head.encode())
    async with asyncio.timeout(30):
        assert b"100 Continue" in await reader.readline()
    child.process.send_signal(signal.SIGINT)
    await child.printed("stdout", '"stopping"')
    child.process.send_signal(signal.SIGINT)
    writer.close()
    assert await child.ended() == (130, "changewire: interrupted again, stopped at once")


async def test_second_ctrl_c_ends_the_demo_at_once_and_leaves_nothing(start: Start) -> None:
    child = start("demo", "--port", "0")
    await child.printed("stdout", "Messages as")
    servers = child.servers()
    signal.pidfd_send_signal(servers["nats-server"], signal.SIGSTOP)  # so that the first stop takes its time
    await until(lambda: is_stopped(pid_of(servers["nats-server"])), "nats-server has stopped")
    child.process.send_signal(signal.SIGINT)
    await child.printed("stdout", "Stopping")
    child.process.send_signal(signal.SIGINT)
    code, said = await child.ended()
    assert (code, said.splitlines()[-1]) == (130, "changewire: interrupted again, stopped at once")
    assert all_gone(servers)
    assert list(child.temporary.iterdir()) == []


async def test_closed_terminal_ends_the_demo_and_its_servers_in_good_order(start: Start) -> None:
    ours, theirs = os.openpty()
    child = start(
        "demo", "--port", "0",
        stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    async with asyncio.timeout(60):
        while b"Messages as" not in shown:
            shown += await asyncio.to_thread(os.read, ours, 65536)
    servers = child.servers()
    os.close(ours)
    assert await asyncio.to_thread(child.process.wait, 60) == 0
    assert all_gone(servers)
    assert list(child.temporary.iterdir()) == []


async def test_what_nohup_or_a_shell_has_it_ignore_it_goes_on_ignoring(start: Start) -> None:
    ignored = (signal.SIGHUP, signal.SIGQUIT)
    child = start("serve", preexec_fn=lambda: [signal.signal(each, signal.SIG_IGN) for each in ignored])
    await child.printed("stdout", '"listening"')
    for number in (*ignored, signal.SIGTERM):
        child.process.send_signal(number)
    await child.printed("stdout", '"signal": "SIGTERM"')
    assert await child.ended() == (0, "")


async def test_closed_terminal_ends_the_service_in_good_order(start: Start, tmp_path: Path) -> None:
    ours, theirs = os.openpty()
    child = start(
        "serve",
        stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    async with asyncio.timeout(60):
        while b"listening" not in shown:
            shown += await asyncio.to_thread(os.read, ours, 65536)
    os.close(ours)
    assert await asyncio.to_thread(child.process.wait, 60) == 0


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [(signal.SIGHUP, 129, "hung up"), (signal.SIGQUIT, 131, "quit"), (signal.SIGTERM, 143, "terminated")],
)
async def test_a_command_that_has_nothing_to_lose_ends_at_once_with_one_line(
    start: Start, number: signal.Signals, code: int, word: str
) -> None:
    child = start("doctor", options=("-X", "importtime"))
    await child.printed("stderr", r"\| +pymongo\n")
    child.process.send_signal(number)
    assert await child.ended() == (code, f"changewire: {word}")


async def test_demo_that_is_quit_while_it_runs_takes_its_servers_along(start: Start) -> None:
    child = start("demo", "--port", "0")
    await child.printed("stdout", "Messages as")
    servers = child.servers()
    child.process.send_signal(signal.SIGQUIT)
    assert (await child.ended())[0] == 0
    assert all_gone(servers)
    assert list(child.temporary.iterdir()) == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGHUP, 129), (signal.SIGTERM, 143), (signal.SIGQUIT, 131)])
async def test_demo_that_is_stopped_while_its_servers_start_leaves_nothing(
    start: Start, number: signal.Signals, code: int
) -> None:
    child = start("demo", "--port", "0", options=("-X", "importtime"), pipesize=4096)
    await child.printed("stderr", r"\| +app\.config\.settings\n")  # while they start; there it waits, as above
    await until(lambda: len(list(child.temporary.iterdir())) == len(SERVERS), "the servers have their directories")
    child.process.send_signal(number)
    assert (await child.ended())[0] == code
    assert list(child.temporary.iterdir()) == []


async def test_servers_do_not_outlive_a_demo_that_is_killed(start: Start) -> None:
    child = start("demo", "--port", "0")
    await child.printed("stdout", "Messages as")
    servers = child.servers()
    child.process.kill()
    assert all_gone(servers)


async def test_ctrl_c_counts_what_was_in_flight(start: Start) -> None:
    child = start("demo", "--port", "0", "--rate", "500", stderr=None)
    await child.printed("stdout", " more")
    child.process.send_signal(signal.SIGINT)
    printed, _ = await asyncio.to_thread(child.process.communicate, None, 60)
    assert child.process.returncode == 0
    counts = re.search(r"^([\d,]+) writes, ([\d,]+) messages\. Stopping …$", printed.decode(), re.MULTILINE)
    assert counts is not None, printed.decode()
    assert counts[1] == counts[2]


def test_service_with_a_trap_leaves_no_directory_when_it_is_killed(tmp_path: Path) -> None:
    script = "import os, signal, tests.traps; os.kill(os.getpid(), signal.SIGKILL)"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env={**os.environ, "TMPDIR": str(tmp_path)}, check=False, timeout=60
    )
    assert done.returncode == -signal.SIGKILL
    assert list(tmp_path.iterdir()) == []
