"""Processes as an instance reports them, for tests of what others make of that."""

import json
import os
from typing import Any

from app.control import process


def described(number: int, /, **other: Any) -> str:
    """A process of this machine as it would describe itself, with something else in its place."""
    host, boot, namespace, _, _ = json.loads(process.this_process())
    fields = {"host": host, "boot": boot, "namespace": namespace, "number": number, "started": process._started(number)}
    return json.dumps([*(fields | other).values()])


def ended() -> str:
    """One of this machine that has ended: another one has its number since."""
    return described(os.getpid(), started="1")
