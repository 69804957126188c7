"""The oplog as tests look at it, on a server of their own with a small one."""

import time
from typing import Any

from bson import Timestamp
from pymongo import MongoClient
from pymongo.errors import OperationFailure

CAPPED_POSITION_LOST = 136


def first(client: MongoClient[Any]) -> Timestamp:
    """The moment of its first entry, which may go while it is read."""
    while True:
        try:
            entry: Any = client.local["oplog.rs"].find_one({}, {"ts": 1}, sort=[("$natural", 1)])
        except OperationFailure as error:
            if error.code != CAPPED_POSITION_LOST:
                raise
        else:
            return Timestamp(entry["ts"].time, entry["ts"].inc)


def outgrow(uri: str) -> None:
    """Write until its first entry is later than now: on a server of the test's own, with a small oplog."""
    deadline = time.monotonic() + 60
    with MongoClient[dict[str, Any]](uri) as client:
        now = client.admin.command("hello")["operationTime"]
        filler = client["filler"]["filler"]
        while first(client) <= now:
            assert time.monotonic() < deadline, "the oplog keeps everything"
            filler.insert_many([{"text": "x" * 1_000_000} for _ in range(10)])
            filler.drop()
