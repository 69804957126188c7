"""Whether streams hold exactly the changes that were made: each message is read, and looked at for its number.

Reads by a pull consumer over a plain socket, when nothing is measured. What a message says besides is the business of
`changewire verify` and of the tests.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import pairwise

from bench.stage import Incomplete, Place, Stage
from bench.wire import Wire
from bench.workload import number_of, numbers_of

SETTLE_SECONDS = 0.5
"""How long streams are left alone, once they are complete, for messages too many."""
BATCH = 256
HEAD_BYTES = 300
"""The operation stands within so many bytes of a body."""


async def exactly(stage: Stage, places: Sequence[Place], events: int, *, ordered: bool = False) -> int:
    """Raise Incomplete unless the streams hold each number below `events` once; return the bytes of all messages.

    `ordered`: also unless each stream's numbers ascend, as those of a collection do that one writer writes to."""
    await asyncio.sleep(SETTLE_SECONDS)
    numbers: Counter[int] = Counter()
    size = early = 0
    for place in places:
        held = await stage.count([place])
        if not held:
            continue
        config = {"deliver_policy": "all", "ack_policy": "none", "mem_storage": True, "inactive_threshold": 10**11}
        answer = await stage.ask(f"CONSUMER.CREATE.{place.stream}", {"stream_name": place.stream, "config": config})
        if "error" in answer:
            raise Incomplete(f"{place.stream} cannot be read: {answer['error']}")
        bodies = await asyncio.to_thread(_read, stage.nats.url, place.stream, answer["name"], held)
        found = [*numbers_of(bodies)]
        early += sum(1 for before, after in pairwise(found) if after < before) if ordered else 0
        numbers.update(found)
        size += sum(map(len, bodies))
    missing = events - sum(1 for number in range(events) if numbers[number])
    surplus = numbers.total() - events + missing
    if missing or surplus:
        raise Incomplete(f"of {events:,} changes {missing:,} have no message, and {surplus:,} messages are too many")
    if early:
        raise Incomplete(f"of {events:,} changes {early:,} came before one that was made earlier")
    return size


async def snapshots(stage: Stage, place: Place, existing: range, changes: range) -> int:
    """Raise Incomplete unless the stream holds each of the changes once and in order, and rows of complete runs that
    belong there; return how many rows there are.

    `existing` are the numbers of the documents that were there before the watcher, `changes` those of the inserts. A
    run has every document that was there when it began once, others once at most, and none before its insert."""
    await asyncio.sleep(SETTLE_SECONDS)
    held = await stage.count([place])
    config = {"deliver_policy": "all", "ack_policy": "none", "mem_storage": True, "inactive_threshold": 10**11}
    answer = await stage.ask(f"CONSUMER.CREATE.{place.stream}", {"stream_name": place.stream, "config": config})
    if "error" in answer:
        raise Incomplete(f"{place.stream} cannot be read: {answer['error']}")
    bodies = _bodies(stage.nats.url, place.stream, answer["name"], held)
    return await asyncio.to_thread(_rows, bodies, existing, changes)


def _rows(bodies: Iterator[bytes], existing: range, changes: range) -> int:
    there, due, run, rows, runs = set(existing), changes.start, set[int](), 0, 0
    begun: set[int] | None = None
    for body in bodies:
        head, number = body[:HEAD_BYTES], number_of(body)
        if b'"operationType":"snapshot_done"' in head:
            missing = (set() if begun is None else begun) - run
            if missing:
                raise Incomplete(f"a run lacks {len(missing):,} documents")
            begun, run, runs = None, set(), runs + 1
        elif b'"operationType":"snapshot"' in head:
            begun = set(there) if begun is None else begun
            if number in run or number not in there:
                raise Incomplete(f"the row of document {number:,} comes twice in a run, or before its insert")
            run.add(number)
            rows += 1
        elif number != due:
            raise Incomplete(f"change {number:,} comes where {due:,} should")
        else:
            there.add(number)
            due += 1
    if due != changes.stop or begun is not None:
        raise Incomplete(f"the stream ends before change {due:,}, or within a run")
    return rows


def _read(url: str, stream: str, consumer: str, count: int) -> list[bytes]:
    return list(_bodies(url, stream, consumer, count))


def _bodies(url: str, stream: str, consumer: str, count: int) -> Iterator[bytes]:
    inbox, subject = f"_INBOX.bench.{consumer}", f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"
    with Wire(url) as wire, closing(wire.messages()) as messages:
        wire.subscribe(inbox)
        for start in range(0, count, BATCH):
            batch = min(BATCH, count - start)
            wire.publish(subject, json.dumps({"batch": batch, "expires": 10 * 10**9}).encode(), inbox)
            for _ in range(batch):
                _, head, body = next(messages)
                if head.startswith(b"NATS/1.0 4") and not body:
                    raise Incomplete(f"{stream} cannot be read: {head.splitlines()[0].decode()}")
                yield body
