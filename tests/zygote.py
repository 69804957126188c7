"""A process that has imported what the service imports, and forks a service or a command whenever a test asks for one.

Nine tenths of what a start costs is importing, and the suite starts many hundreds. What is forked is a process as any
other: with its own process id, environment, working directory, output and session, and a child of the test run, which
ends, stops and awaits it, and which it does not outlive. Tests of the command line itself start it in full.

This module is the zygote's program as well: what only the tests need is not imported here.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

_SET_DEATH_SIGNAL, _SET_CHILD_SUBREAPER = 1, 36
"""Of prctl(2)."""
_ADOPTED_SECONDS = 30.0
_POLL_SECONDS = 0.01
_NOT_INHERITED = "COVERAGE_"
"""Measuring coverage slows a service down, and what is killed does not tell what it has covered."""
MODULES = ("app.main", "app.api", "app.cli.http_server", "app.cli.listening", "app.cli.verify", "uvloop", "tests.traps")


class Forked:
    """A process that a zygote has forked: as much of `subprocess.Popen` as the tests need."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Its exit code, the negated signal's number where one ended it; None while it is there."""
        return self._wait(os.WNOHANG)

    def wait(self) -> int:
        """Wait for its end; its exit code."""
        code = self._wait(0)
        assert code is not None
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _wait(self, flags: int) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, flags)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode


class Zygote:
    """One per test process."""

    def __init__(self) -> None:
        # Who forks ends at once, so that its child becomes ours.
        ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1)
        self._ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(theirs.fileno()), str(os.getpid())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                cwd=Path(__file__).parents[1],
                env={name: value for name, value in os.environ.items() if not name.startswith(_NOT_INHERITED)},
            )

    def fork(self, asked: Mapping[str, Any]) -> Forked:
        """Fork what is asked for; see `fork` below."""
        self._ours.sendall(json.dumps(asked).encode() + b"\n")
        said = b""
        while not said.endswith(b"\n"):
            more = self._ours.recv(64)
            assert more, "the zygote has ended"
            said += more
        return Forked(int(said))


@cache
def zygote() -> Zygote:
    """The one of this test process, started with the first service."""
    return Zygote()


def fork(
    module: str, *arguments: str, cwd: Path, env: Mapping[str, str], out: Path, errors: Path | None = None
) -> Forked:
    """Run `python -m module` with these arguments; what it prints is added to `out`, its errors too or to `errors`."""
    printed = [str(out), str(errors or out)]
    return zygote().fork({"argv": [module, *arguments], "cwd": str(cwd), "env": dict(env), "printed": printed})


@dataclass(frozen=True)
class Done:
    """What a command has answered."""

    code: int
    output: str
    errors: str


async def changewire(*arguments: str, cwd: Path, env: Mapping[str, str], within: float = 60) -> Done:
    """Run a command of the command line to its end; TimeoutError after so many seconds."""
    with tempfile.TemporaryDirectory() as folder:
        out, errors = Path(folder) / "out", Path(folder) / "errors"
        command = fork("app", *arguments, cwd=cwd, env=env, out=out, errors=errors)
        try:
            async with asyncio.timeout(within):
                while command.poll() is None:
                    await asyncio.sleep(_POLL_SECONDS)
        finally:
            command.kill()
            code = command.wait()
        return Done(code, out.read_text(), errors.read_text())


def serve(channel: socket.socket, tests: int) -> dict[str, Any] | None:
    """Fork a child for each line that comes; return what was asked for in the child, None at the end."""
    requests = channel.makefile("rb")
    while line := requests.readline():
        middle = os.fork()
        if middle:
            os.waitpid(middle, 0)
            continue
        if os.fork():
            os._exit(0)
        become_child_of(tests)
        channel.sendall(b"%d\n" % os.getpid())
        requests.close()
        channel.close()
        return dict(json.loads(line))
    return None


def become_child_of(parent: int) -> None:
    """Wait until the test run is this process's parent, and end with it from then on."""
    deadline = time.monotonic() + _ADOPTED_SECONDS
    while os.getppid() != parent:
        if time.monotonic() > deadline:
            sys.exit("the test run is gone")
        time.sleep(0.001)
    ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("the test run is gone")


def main(channel: int, tests: int) -> None:
    """Import, then fork until the test run closes its end."""
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    from app.cli.serve import import_structlog

    import_structlog()
    for module in MODULES:
        __import__(module)
    gc.collect()
    gc.freeze()
    asked = serve(socket.socket(fileno=channel), tests)
    if asked is None:
        os._exit(0)
    os.setsid()
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["env"])
    for descriptor, path in enumerate(asked["printed"], 1):
        opened = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        os.dup2(opened, descriptor)
        os.close(opened)
    sys.argv = ["", *asked["argv"][1:]]
    sys.modules.pop(asked["argv"][0], None)  # Python warns of a module that is run and was imported
    runpy.run_module(asked["argv"][0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
