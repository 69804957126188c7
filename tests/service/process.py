"""The real service as a process of its own, which a test kills, freezes, and asks over HTTP."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import httpx

from app.devservers.process import freeze
from app.devservers.servers import free_port, release_port
from tests.service.waiting import is_stopped, until
from tests.traps import Trap
from tests.zygote import Forked, fork

ROOT = Path(__file__).resolve().parent.parent.parent
ASKED_SECONDS = 2.0
"""How long a process may take to tell what runs in it: it may be frozen."""
_STATE = re.compile(r'changewire_watcher_state\{state="RUNNING",watcher="(?P<name>[^"]+)"\} (?P<value>\S+)')


class Service:
    """One `changewire serve` with an address, a working directory and a log of its own."""

    def __init__(self, name: str, workdir: Path, environment: Mapping[str, str], *, trap: Trap | None = None) -> None:
        self.name = name
        self.port = free_port()
        self.trap = trap
        """Sprung at most once: the next start is an ordinary one."""
        self.log = workdir / f"{name}.log"
        self._workdir = workdir
        self._environment = {**environment, "SERVER_ADDR": f"127.0.0.1:{self.port}"}
        self._process: Forked | None = None
        self._http = httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.port}", timeout=20, trust_env=False)

    # Life

    @property
    def pid(self) -> int:
        assert self._process is not None, f"{self.name} was never started"
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process is there (frozen counts)."""
        return self._process is not None and self._process.poll() is None

    async def start(self) -> Self:
        """Start it and wait until HTTP answers; the watchers may still be starting."""
        self.spawn()
        await until(self._lives, f"{self.name} answers /livez", within=60)
        return self

    def spawn(self) -> None:
        """Start it and do not wait."""
        assert not self.running, f"{self.name} runs already"
        trap, self.trap = self.trap, None
        module = "app" if trap is None else "tests.traps"
        environment = self._environment if trap is None else {**self._environment, "TRAP": str(trap)}
        # In a directory where no .env and no connector.yaml of somebody else's is read.
        self._process = fork(module, "serve", cwd=self._workdir, env=environment, out=self.log)

    async def _lives(self) -> bool:
        assert self.running, f"{self.name} ended with {self.exit_code} at its start:\n{self.log_tail()}"
        try:
            return (await self._http.get("/livez", timeout=2)).status_code == 200
        except httpx.TransportError:
            return False

    @property
    def exit_code(self) -> int | None:
        return None if self._process is None else self._process.poll()

    def kill(self) -> None:
        """End it at once (SIGKILL); fine if it has ended."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    async def terminate(self, within: float = 30) -> int:
        """Ask it to end (SIGTERM) and return its exit code."""
        assert self._process is not None
        self._process.terminate()
        await until(lambda: not self.running, f"{self.name} ends after SIGTERM", within=within)
        assert self.exit_code is not None
        return self.exit_code

    def freeze(self) -> None:
        """Stop its clock (SIGSTOP) and wait until it has stopped: it does nothing and holds on to everything."""
        freeze(self.pid)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    async def trapped(self, within: float = 30) -> None:
        """Wait until the trap has sprung: the process is dead by SIGKILL, or stopped by SIGSTOP."""
        await until(lambda: not self.running or is_stopped(self.pid), f"the trap in {self.name} springs", within=within)
        assert self.exit_code in (None, -signal.SIGKILL), f"it ended by itself:\n{self.log_tail()}"

    @property
    def resident(self) -> int:
        """Its resident memory in bytes."""
        found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{self.pid}/status").read_text())
        assert found is not None
        return int(found.group(1)) * 1024

    def log_tail(self, lines: int = 40) -> str:
        said = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return "\n".join(said[-lines:])

    def logged(self, after: int = 0) -> list[dict[str, Any]]:
        """The lines of its log after so many, each of which has to be JSON; one is left out while it is written."""
        whole, _, _ = self.log.read_bytes().rpartition(b"\n")
        return [json.loads(line) for line in whole.decode().splitlines()[after:]]

    async def close(self) -> None:
        self.kill()
        await self._http.aclose()
        release_port(self.port)

    # What it is asked

    async def call(self, method: str, path: str, body: object = None, *, status: int | None = None) -> httpx.Response:
        """Make one HTTP call; AssertionError where another `status` comes back.

        A service that was frozen closes connections that were idle meanwhile. A call that meets this was not looked at,
        and one that changes nothing is made again, as every client does."""
        try:
            answer = await self._http.request(method, path, json=body)
        except httpx.RemoteProtocolError:
            if method != "GET":
                raise
            answer = await self._http.request(method, path, json=body)
        assert status in (None, answer.status_code), f"{method} {path}: {answer.status_code} {answer.text}"
        return answer

    async def status(self, watcher: str) -> dict[str, Any]:
        """The watcher's status, `{}` where this service does not know it or does not answer (yet)."""
        try:
            answer = await self.call("GET", f"/watchers/{watcher}/status")
        except httpx.TransportError:
            return {}
        return dict(answer.json()) if answer.status_code == 200 else {}

    async def state(self, watcher: str) -> str | None:
        state = (await self.status(watcher)).get("state")
        return None if state is None else str(state)

    async def until_state(self, watcher: str, *states: str, within: float = 30) -> dict[str, Any]:
        """Wait until the watcher is in one of the states, and return its status."""
        seen: dict[str, Any] = {}

        async def there() -> bool:
            seen.clear()
            seen.update(await self.status(watcher))
            return seen.get("state") in states

        try:
            await until(there, "", within=within)
        except AssertionError:
            raise AssertionError(f"{watcher} in {self.name} is not {' or '.join(states)} but {seen}") from None
        return seen

    async def runs(self) -> set[str]:
        """The watchers that are RUNNING in this very process, by its metrics: what it says of a watcher's status may be
        another instance's answer. Empty where it does not answer soon."""
        try:
            answer = await self._http.get("/metrics", timeout=ASKED_SECONDS)
        except httpx.TransportError:
            return set()
        states = (_STATE.fullmatch(line) for line in answer.text.splitlines())
        return {found["name"] for found in states if found is not None and float(found["value"])}

    async def up(self) -> bool:
        """Whether /healthz says UP."""
        answer = await self.call("GET", "/healthz")
        assert (answer.status_code, answer.json()["status"]) in ((200, "UP"), (503, "DOWN")), answer.text
        return answer.status_code == 200
