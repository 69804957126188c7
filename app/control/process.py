"""This process as its machine knows it, so that the next one here knows whether it still runs.

A process that was killed cannot take back its report. Its successor on the same machine need not wait until the report
is too old: it can look. Where the machine has no /proc nothing is known, and the report has to grow old.
"""

import json
import os
import socket
from pathlib import Path

BOOT = Path("/proc/sys/kernel/random/boot_id")
NAMESPACE = Path("/proc/self/ns/pid")


def this_process() -> str:
    """Return what tells this process from every other one, as text."""
    try:
        started = _started(os.getpid())
    except OSError:
        started = ""
    return json.dumps([*_machine(), os.getpid(), started])


def has_ended(process: str) -> bool:
    """Whether a process, as its `this_process` was, is known to have ended. False where that is not known."""
    try:
        host, boot, namespace, number, started = json.loads(process)
        number = int(number)
    except (ValueError, TypeError):
        return False
    if [host, boot, namespace] != _machine() or not boot or not namespace or not started:
        return False
    try:
        now = _started(number)
    except OSError:  # there may be such a process: too many files are open, for one
        return False
    return now != started and (bool(now) or not _is_there(number))


def _machine() -> list[str]:
    """Host, boot and the namespace of process ids; empty where the machine does not say."""
    try:
        return [socket.gethostname(), BOOT.read_text().strip(), str(NAMESPACE.readlink())]
    except OSError:
        return [socket.gethostname(), "", ""]


def _is_there(number: int) -> bool:
    """Whether there is such a process, also where /proc hides those of other users; a zombie is not."""
    try:
        os.kill(number, 0)
    except PermissionError:
        return True
    except OSError:
        return False
    return not Path(f"/proc/{number}/stat").exists()  # else it is a zombie


def _started(number: int) -> str:
    """Return when a process was started, in ticks since the machine was; empty where there is no such process.

    Raises OSError where it cannot be read."""
    try:
        stat = Path(f"/proc/{number}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    fields = stat[stat.rindex(")") + 2 :].split()
    return "" if fields[0] in "ZX" else fields[19]
