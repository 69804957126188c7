"""Servers in memory that misbehave on request: what a real one cannot be made to do at the right moment.

They keep the promises of `app/ports/__init__.py` and pass the same contract suites as the adapters (`tests/contract/`).
What they do wrong is scripted: `FakeStream.faults` and `FakeOplog.faults` are queues of deeds, one taken per call.
"""

from tests.fakes.checkpoint_store import FakeCheckpoints
from tests.fakes.collections import FakeCollections
from tests.fakes.dead_letter_queue import FakeBox, FakeLetters
from tests.fakes.instance_store import FakeInstances, FakeInstanceState
from tests.fakes.observer import NullObserver
from tests.fakes.row_source import FakeRows
from tests.fakes.servers import FakeMongo, FakeNats
from tests.fakes.sink import MAX_ID, FakeSink
from tests.fakes.snapshot_store import FakeSnapshots, Unheard
from tests.fakes.source import BEGIN, UUID, FakeOplog, FakeSource, event_token, mark_token, raw_event
from tests.fakes.stream import Deed, FakeMessage, FakeStream, PipelinedMode
from tests.fakes.stream_reader import FakeReader
from tests.fakes.watcher_store import FakeWatchers

__all__ = [
    "BEGIN", "MAX_ID", "UUID", "Deed", "FakeBox", "FakeCheckpoints", "FakeCollections", "FakeInstanceState",
    "FakeInstances", "FakeLetters", "FakeMessage", "FakeMongo", "FakeNats", "FakeOplog", "FakeReader", "FakeRows",
    "FakeSink", "FakeSnapshots", "FakeSource", "FakeStream", "FakeWatchers", "NullObserver", "PipelinedMode", "Unheard",
    "event_token", "mark_token", "raw_event",
]  # fmt: skip
