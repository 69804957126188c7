"""What a process used, and how busy the machine was besides: read from Linux's /proc, which costs next to nothing."""

import contextlib
import os
import platform
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_TICKS = os.sysconf("SC_CLK_TCK")
_MIB = 1024 * 1024
EVENT_LOOP, OTHER_THREADS = "event loop", "other threads"


def cpu_seconds(pid: int) -> float:
    """Processor time that a process and what it has started have used, in seconds (resolution: 10 ms)."""
    ticks = 0
    for each in tree(pid):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / _TICKS


def thread_seconds(pid: int) -> dict[str, float]:
    """Processor time of a process's threads, in seconds: its first one, which runs the event loop, and the others.

    Others are summed up by the names that the system knows, where these are not simply the process's. A thread that
    has ended is not counted."""
    used: dict[str, float] = {}
    own = Path(f"/proc/{pid}/comm").read_text().strip()
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):  # it has ended meanwhile
            name = (task / "comm").read_text().strip()
            nanoseconds = int((task / "schedstat").read_text().split()[0])
            name = EVENT_LOOP if int(task.name) == pid else OTHER_THREADS if name == own else name
            used[name] = used.get(name, 0.0) + nanoseconds / 1e9
    return used


def tree(pid: int) -> list[int]:
    """A process and all that it has started, and these have."""
    found = [pid]
    for each in found:
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{each}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
    return found


def rss_mb(pid: int) -> float:
    """Resident memory now, in MiB."""
    return _status(pid, "VmRSS")


def peak_mb(pid: int) -> float:
    """The most resident memory since the process began, in MiB."""
    return _status(pid, "VmHWM")


def _status(pid: int, field: str) -> float:
    kib = 0
    for each in tree(pid):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{each}/status").read_text().splitlines():
                name, _, value = line.partition(":")
                if name == field:
                    kib += int(value.split()[0])
    if not kib:
        raise ProcessLookupError(f"process {pid} has ended")
    return kib * 1024 / _MIB


def busy_seconds() -> float:
    """Processor time that the whole machine has used since it began, what the hypervisor took away included."""
    user, nice, system, _idle, _wait, irq, softirq, steal, *_ = map(
        int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    )
    return (user + nice + system + irq + softirq + steal) / _TICKS


@dataclass(frozen=True, slots=True)
class Moment:
    """The time, and the processor time used until then: by each process of ours, and by the machine."""

    at: float
    busy: float
    used: Mapping[str, float]

    @classmethod
    def now(cls, pids: Mapping[str, Sequence[int]]) -> "Moment":
        """Read the clocks of the named processes, several together where so named; this one is added as `bench`."""
        used = {name: sum(map(cpu_seconds, each)) for name, each in pids.items()}
        return cls(time.perf_counter(), busy_seconds(), {**used, "bench": time.process_time()})

    def since(self, before: "Moment") -> "Span":
        """What was used from `before` to this moment."""
        used = {name: value - before.used[name] for name, value in self.used.items()}
        seconds = self.at - before.at
        others = max(0.0, self.busy - before.busy - sum(used.values()))
        return Span(seconds, used, others / seconds / cores() if seconds else 0.0)


@dataclass(frozen=True, slots=True)
class Span:
    """Processor seconds by process over `seconds`; `others`: the share of all cores that anybody else took, 0 to 1."""

    seconds: float
    used: Mapping[str, float]
    others: float


def cores() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0))


def machine(versions: Mapping[str, str]) -> dict[str, Any]:
    """Describe where this ran: the class of machine, never its name."""
    model = _first("/proc/cpuinfo", ("model name",)) or platform.machine()
    memory = _first("/proc/meminfo", ("MemTotal",)).split()
    return {
        "cores": cores(),
        "cpu": model,
        "memory_gb": round(int(memory[0]) / 1024**2) if memory else None,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "load_before": [round(each, 2) for each in os.getloadavg()],
        **versions,
    }


def _first(path: str, names: Iterable[str]) -> str:
    for line in Path(path).read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() in names:
            return value.strip()
    return ""
