"""A program that is measured, as a process of its own with a log of its own.

It is the first of a session, so that what it has started itself ends with it, and is counted with it (`procfs.py`).
"""

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from bench.stage import Incomplete

STOP_SECONDS = 20


class Program:
    """A running contender. Use it as an async context manager: it ends with the block."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], directory: Path, name: str) -> None:
        self._log = directory / f"{name}.log"
        with self._log.open("ab") as log:
            self.began = time.perf_counter()
            self._process = subprocess.Popen(
                command,
                env=environment,
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.pid = self._process.pid

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            error.add_note(self.words())
        try:
            await self.stop()
        except BaseException:
            self._signal(signal.SIGKILL)
            raise

    async def stop(self) -> None:
        """Ask it to end (SIGTERM), and kill it, and whatever it has left behind, where it does not."""
        if self._process.poll() is None:
            self._signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                await asyncio.to_thread(self._process.wait, STOP_SECONDS)
        self.kill()

    def kill(self) -> None:
        """End it as a crash does (SIGKILL), and wait until it has ended."""
        self._signal(signal.SIGKILL)
        self._process.wait()

    def freeze(self) -> None:
        """Have it do nothing until it is thawed (SIGSTOP)."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def check(self) -> None:
        """Raise Incomplete where it has ended by itself."""
        if self._process.poll() is not None:
            raise Incomplete(f"the process ended with {self._process.returncode}\n{self.words()}")

    def words(self, lines: int = 15) -> str:
        """The end of its log."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-lines:])
