"""What the streams of a crowd hold, laid beside MongoDB's history and the writers' own list, change by change.

The history is read once for all: by a change stream over the whole deployment, which shares nothing with the service.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from bson.timestamp import Timestamp
from pymongo import AsyncMongoClient

from app.verify.findings import KINDS
from tests.faults.crowd import OTHER_DATABASE, Crowd, Visit
from tests.faults.ledger import OPERATIONS, History, audit
from tests.faults.recorder import Record, Recorder, change_of
from tests.faults.testbed import DATABASE, stream_of
from tests.faults.verdict import VERIFY_SECONDS, Verdict
from tests.faults.writers import LAST
from tests.service import until

AT_ONCE = 6
"""How many streams are read at the same time."""

Histories = dict[tuple[str, str | None], list[tuple[str, tuple[str, Any, Any]]]]
"""By database and collection; without a collection, the database's."""


async def verify(crowd: Crowd) -> list[Verdict]:
    """Compare every watcher's stream; the services have ended."""
    async with asyncio.timeout(VERIFY_SECONDS):
        histories = await read_histories(crowd.mongo.uri, crowd.since, set(crowd.writers.collections))
    limit = asyncio.Semaphore(AT_ONCE)

    async def compared(name: str, database: str, collection: str | None, visit: Visit | None = None) -> Verdict:
        async with limit:
            return await _compare(crowd, Verdict(name), histories[database, collection], collection, visit)

    watchers = [(each["name"], each["source"]) for each in crowd.watchers]
    visits = [(visit, crowd.described(visit.name, visit.collection)["source"]) for visit in crowd.visits]
    return await asyncio.gather(
        *(compared(name, source["database"], source.get("collection")) for name, source in watchers),
        *(compared(visit.name, source["database"], visit.collection, visit) for visit, source in visits),
    )


async def read_histories(uri: str, since: Timestamp, collections: set[str]) -> Histories:
    """Read the changes of both databases from then on, until the last document of each collection."""
    databases = {"$in": [DATABASE, OTHER_DATABASE]}
    match = {"ns.db": databases, "operationType": {"$in": OPERATIONS}}
    histories: Histories = defaultdict(list)
    left = set(collections)
    async with (
        AsyncMongoClient(uri, serverSelectionTimeoutMS=10_000) as client,
        await client.watch([{"$match": match}], start_at_operation_time=since, batch_size=1_000) as stream,
    ):
        async for event in stream:
            change, database, collection = change_of(dict(event)), event["ns"]["db"], event["ns"]["coll"]
            for place in ((database, collection), (database, None)):
                histories[place].append((event["_id"]["_data"], change))
            if change[1] == LAST:
                left.discard(collection)
                if not left:
                    break
    return histories


async def _compare(
    crowd: Crowd, verdict: Verdict, history: History, collection: str | None, visit: Visit | None
) -> Verdict:
    records = await _read(crowd, verdict)
    if visit is not None:
        history = visited(history, records, visit)
    account = audit(records, history, {})
    verdict.messages = verdict.compared = account.recorded
    for kind in KINDS:
        found: list[str] = getattr(account, kind)
        verdict.wrong[kind] = len(found)
        verdict.problems += [f"{kind}: {what}" for what in found[:5]]
    if collection is not None and visit is None:
        _list(crowd, verdict, records, collection)
    return verdict


async def _read(crowd: Crowd, verdict: Verdict) -> Sequence[Record]:
    """Everything that the stream holds."""
    stream = stream_of(verdict.watcher)
    state = (await crowd.nats.change(f"STREAM.INFO.{stream}"))["state"]
    recorder = Recorder([node.server for node in crowd.nats.nodes], stream)
    try:
        async with recorder.recording():
            await until(lambda: len(recorder.records) >= state["messages"], f"{stream} is read", within=VERIFY_SECONDS)
    except Exception as error:
        verdict.problems.append(f"{stream} cannot be read: {error!r}")
    return recorder.records


def visited(history: History, records: Sequence[Record], visit: Visit) -> History:
    """The part of the history that a visitor has to have: what is between its first and its last message, and at least
    what is between its marks."""
    places = {token: place for place, (token, _) in enumerate(history)}
    marks = {change[1]: place for place, (_, change) in enumerate(history) if change[1] in (visit.first, visit.last)}
    found = [places[record.token] for record in records if record.token in places]
    first = min([marks[visit.first], *found])
    last = max([marks[visit.last], *found])
    return history[first : last + 1]


def _list(crowd: Crowd, verdict: Verdict, records: Sequence[Record], collection: str) -> None:
    """Compare with what the writers have noted: all that is certain is there, and nothing that is not noted."""
    arrived = {record.change for record in records}
    certain, noted = set(), set()
    for line in crowd.writers.listed(collection):
        change = (line["operation"], line["id"], line.get("fields", {}).get("n"))
        noted.add(change)
        if not line.get("uncertain"):
            certain.add(change)
    verdict.listed = len(certain & arrived)
    for kind, found in (("lost", certain - arrived), ("unknown", arrived - noted)):
        verdict.wrong[kind] += len(found)
        verdict.problems += [f"{kind}, by the writers' list: {change}" for change in sorted(map(str, found))[:5]]
