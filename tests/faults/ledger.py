"""Whether all that was ever delivered of a stream is what it should have been, though messages were destroyed on it.

A recording is laid beside MongoDB's history, change by change. Between two neighbours of the recording there may be
exactly as many changes as the stream's sequence has jumped: those were published, and destroyed before anybody read
them. One more is lost, one less was published twice. Where the stream was recreated, either the marker of a gap or the
token that somebody has set says where the history goes on.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bson.timestamp import Timestamp
from pymongo import AsyncMongoClient

from tests.faults.recorder import Record, change_of
from tests.faults.writers import LAST

OPERATIONS = ("insert", "update", "replace", "delete")

History = Sequence[tuple[str, tuple[str, Any, Any]]]
"""Tokens and changes, in MongoDB's order."""


@dataclass
class Account:
    """What a comparison found. `destroyed` and `in_gaps` are no faults: nobody read them, or a marker names them."""

    recorded: int = 0
    destroyed: int = 0
    in_gaps: int = 0
    gaps: int = 0
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    reordered: list[str] = field(default_factory=list)
    altered: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)


def audit(records: Sequence[Record], history: History, resets: Mapping[int, str]) -> Account:
    """Compare a recording with the history; `resets`: incarnations that begin behind a token."""
    tokens = [token for token, _ in history]
    places = {token: place for place, token in enumerate(tokens)}
    account = Account(recorded=len(records))
    incarnation, sequence, place, last = 0, 0, -1, ""
    seen: set[str] = set()
    for record in records:
        if record.incarnation != incarnation:
            incarnation, sequence = record.incarnation, 0
            if incarnation in resets:
                place = bisect_right(tokens, resets[incarnation]) - 1
            elif record.change is not None:
                account.unknown.append(f"{_name(record)} begins a stream, and is no gap's marker")
        jumped, sequence = record.sequence - sequence - 1, record.sequence
        if record.change is None:
            _pass_gap(account, record, bisect_right(tokens, record.token) - 1 - place, last)
            place, last = max(place, bisect_right(tokens, record.token) - 1), max(last, record.token)
            continue
        here = places.get(record.token)
        if here is None:
            account.unknown.append(_name(record))
        elif record.token <= last:
            (account.doubled if record.token in seen else account.reordered).append(_name(record))
        else:
            passed = here - place - 1
            account.destroyed += min(passed, jumped)
            if passed > jumped:
                account.lost.append(f"{passed - jumped} of the changes before {_name(record)}")
            elif jumped > passed:
                account.doubled.append(f"{jumped - passed} of the messages before {_name(record)}")
            if history[here][1] != record.change:
                account.altered.append(f"{_name(record)} is {record.change}, not {history[here][1]}")
            place, last = here, record.token
        seen.add(record.token)
    if place + 1 < len(tokens):
        account.lost.append(f"{len(tokens) - place - 1} changes after {last}")
    return account


def _pass_gap(account: Account, marker: Record, skipped: int, last: str) -> None:
    if marker.sequence != 1 or marker.incarnation == 0:
        account.unknown.append(f"a gap's marker at {_name(marker)}")
    if marker.token < last:
        account.reordered.append(f"a gap's marker at {_name(marker)}, after {last}")
    account.gaps += 1
    account.in_gaps += max(0, skipped)


def _name(record: Record) -> str:
    return f"#{record.sequence} of stream {record.incarnation + 1} ({record.token})"


async def read_history(uri: str, database: str, collection: str, since: Timestamp) -> History:
    """Read the collection's changes from then on up to the last document, over drops and renames.

    By a change stream over the whole deployment, which nothing of that ends.
    """
    match = {"ns.db": database, "ns.coll": collection, "operationType": {"$in": OPERATIONS}}
    history: list[tuple[str, tuple[str, Any, Any]]] = []
    async with (
        AsyncMongoClient(uri, serverSelectionTimeoutMS=10_000) as client,
        await client.watch([{"$match": match}], start_at_operation_time=since, batch_size=1_000) as stream,
    ):
        async for event in stream:
            change = change_of(dict(event))
            history.append((event["_id"]["_data"], change))
            if change[1] == LAST:
                break
    return history
