"""Whether each write of the demo's writers is on the streams once and in order: the verdict of `--for`.

A stream is read to its end. A rewind publishes again, in a new epoch: what counts then is the last epoch of a change.
"""

import asyncio
import json
from collections.abc import Iterable
from typing import Any

from nats.js.api import ConsumerConfig, DeliverPolicy
from nats.js.client import JetStreamContext

from app.cli.traffic import Key, Verdict, Writer, compare, key_of
from app.domain.tokens import parse_message_id

_READ_SECONDS = 15
_CHANGES = frozenset({"insert", "update", "delete"})


async def verdict(stream: JetStreamContext, name: str, writer: Writer) -> Verdict:
    """Compare a stream with what its writer wrote. Raises what nats-py raises, and TimeoutError."""
    state = (await stream.stream_info(name)).state
    received = joined(await _changes(stream, name, writer.run) if state.messages else [])
    written = writer.written
    if state.first_seq > 1 and received:  # the stream is full, and drops its oldest messages
        written = written[written.index(received[0]) :] if received[0] in written else written
    return compare(written, received, writer.uncertain)


def joined(found: Iterable[tuple[int, Key]]) -> list[Key]:
    """The changes in one order out of (epoch, change): where a later epoch has a change, it has all after it too."""
    epochs: dict[int, list[Key]] = {}
    for epoch, key in found:
        epochs.setdefault(epoch, []).append(key)
    whole: list[Key] = []
    for epoch in sorted(epochs):
        again = set(epochs[epoch])
        whole = [key for key in whole if key not in again] + epochs[epoch]
    return whole


async def _changes(stream: JetStreamContext, name: str, run: str) -> list[tuple[int, Key]]:
    found = []
    messages = await stream.subscribe(
        f"{name}.>", ordered_consumer=True, config=ConsumerConfig(deliver_policy=DeliverPolicy.ALL)
    )
    try:
        left = 1
        while left:
            message = await messages.next_msg(timeout=_READ_SECONDS)
            left = message.metadata.num_pending
            event = json.loads(message.data)
            if event["operationType"] in _CHANGES:
                key = key_of(event)
                if key.id.startswith(f"{run}-"):
                    found.append((epoch_of(message), key))
            await asyncio.sleep(0)
    finally:
        await messages.unsubscribe()
    return found


def epoch_of(message: Any) -> int:
    """The epoch that a message's id names; the first one where it names none."""
    id_ = parse_message_id((message.headers or {}).get("Nats-Msg-Id"))
    return 0 if id_ is None else id_.epoch
