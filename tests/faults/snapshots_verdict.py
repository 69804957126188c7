"""What the streams hold after a run of snapshots: each row beside the changes before it, and by `changewire verify`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from nats.aio.msg import Msg

from tests.faults.cluster import NatsNode
from tests.faults.recorder import Recorder
from tests.faults.snapshots import Snapshots
from tests.faults.testbed import DATABASE, stream_of
from tests.faults.verdict import VERIFY_SECONDS, Verdict, compare
from tests.service import until
from tests.service.messages import HEADER, Message
from tests.service.rows import Applied


async def verify(testbed: Snapshots) -> list[Verdict]:
    """Compare every watcher's stream; the services have ended."""
    return await asyncio.gather(*(_verify(testbed, name) for name in testbed.names))


async def _verify(testbed: Snapshots, name: str) -> Verdict:
    verdict = await compare(testbed, name)
    applied = Applied(dict(testbed.before[name]))
    applied.apply(await _messages(testbed, name))
    after = {each["_id"]: each["n"] async for each in testbed.client[DATABASE][name].find({}, {"n": 1})}
    if applied.wrong:
        verdict.wrong["altered"] += len(applied.wrong)
        verdict.problems += [f"rows: {what}" for what in applied.wrong[:5]]
    if applied.state != after:
        verdict.problems.append("rows: the stream's changes do not lead to what the collection holds")
    complete = [run for run, each in applied.runs.items() if each.done]
    if complete and applied.known != after:
        verdict.problems.append(f"rows: after {complete} the stream has {len(applied.known)} of {len(after)} documents")
    rows = sum(len(each.rows) for each in applied.runs.values())
    print(f"{name}: {len(complete)} of {len(applied.runs)} snapshots complete, {rows:,} rows", flush=True)
    return verdict


async def _messages(testbed: Snapshots, name: str) -> list[Message]:
    """Everything of the watcher's on its stream."""
    stream = stream_of(name)
    state = (await testbed.nats.change(f"STREAM.INFO.{stream}"))["state"]
    reader = Reader([node.server for node in testbed.nats.nodes], stream)
    async with reader.recording():
        await until(lambda: reader.last >= state["last_seq"], f"{stream} is read", within=VERIFY_SECONDS)
    return reader.messages


class Reader(Recorder):
    """Keeps the messages of the watcher as they are."""

    def __init__(self, nodes: Sequence[NatsNode], stream: str) -> None:
        super().__init__(nodes, stream)
        self.messages: list[Message] = []
        self.last = 0

    def _take(self, message: Msg) -> None:
        found = Message(message.metadata.sequence.stream, message.subject, message.headers or {}, message.data)
        assert found.sequence > self.last, f"#{found.sequence} was delivered after #{self.last}"
        self.last = found.sequence
        self._next = found.sequence + 1
        if HEADER in found.headers:
            self.messages.append(found)
