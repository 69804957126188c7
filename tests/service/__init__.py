"""The real service as a process of its own, and a stage to break it on: servers, traffic, and what arrived in the end.

A test gets a `Stage`, starts services on it, adds a watcher, lets changes happen, kills what it wants to kill, and
asks `stage.check()` whether the stream holds every change once and in order. Nothing here looks into the service: it is
asked over HTTP, and judged by its messages. Where it has to die at one exact moment, `tests/traps.py` is started.
"""

from tests.service.messages import Change, Message, assert_same
from tests.service.process import ROOT, Service
from tests.service.stage import Stage, staged
from tests.service.waiting import is_stopped, until
from tests.traps import Trap

__all__ = ["ROOT", "Change", "Message", "Service", "Stage", "Trap", "assert_same", "is_stopped", "staged", "until"]
