"""The near end of a latency, a process of its own: writes at a steady rate, and tells when each was acknowledged.

`python -m bench.write ORDERS`, which are JSON (`Steadily`). Prints `begin` once it is warm, and at the end
[[number, when]…] and the processor seconds it used. The pauses vary by half around the rate's, so that the writes do
not fall into step with anything; a writer that is late by more than a second gives up what it missed.

It speaks to mongod over plain sockets: a driver takes a quarter of a millisecond of processor time for an insert, which
at a thousand a second would be measured too.
"""

import json
import random
import socket
import struct
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlsplit

import bson

from bench import workload
from bench.wire import Wire

_OP_MSG = 2013
WARM = 100
_HEAD = struct.Struct("<iiiiIB")  # size, request, response to, operation, flags, kind of section: one document


@dataclass(frozen=True, slots=True)
class Steadily:
    """What to write: `count` orders, `rate` a second, by so many `writers` at once, each `group` at a time.

    Into places at random: `[database, collection]`, or `[subject]` of NATS. `warm` more are written before, with the
    numbers from `count` on."""

    uri: str
    places: list[list[str]]
    count: int
    rate: float
    writers: int = 1
    group: int = 1
    warm: int = WARM

    def command(self) -> list[str]:
        return [sys.executable, "-m", "bench.write", json.dumps(asdict(self))]


Put = Callable[[list[str], range], float]
"""Writes the orders of these numbers to a place, and returns when that was done (or, into NATS, begun)."""


def main() -> None:
    """Write, and tell."""
    asked = Steadily(**json.loads(sys.argv[1]))
    make = _publisher if asked.uri.startswith("nats") else inserter
    puts = [make(asked.uri) for _ in range(asked.writers)]
    dice = random.Random(0)
    for number in range(asked.count, asked.count + asked.warm):
        puts[number % asked.writers](dice.choice(asked.places), range(number, number + 1))
        time.sleep(min(1 / asked.rate, 0.01))
    time.sleep(1)
    print("begin", flush=True)
    began, acknowledged = time.process_time(), []
    with ThreadPoolExecutor(asked.writers) as threads:
        for part in threads.map(lambda each: _steadily(asked, *each), enumerate(puts)):
            acknowledged += part
    json.dump({"acknowledged": acknowledged, "cpu": time.process_time() - began}, sys.stdout)


def _steadily(asked: Steadily, part: int, put: Put) -> list[tuple[int, float]]:
    """One writer's part: every so many-th group."""
    dice = random.Random(part)
    pause = asked.group * asked.writers / asked.rate
    acknowledged, due = [], time.perf_counter() + dice.random() * pause
    for start in range(part * asked.group, asked.count, asked.writers * asked.group):
        numbers = range(start, min(start + asked.group, asked.count))
        time.sleep(max(0.0, due - time.perf_counter()))
        at = put(dice.choice(asked.places), numbers)
        acknowledged += [(number, at) for number in numbers]
        due = max(due + dice.uniform(0.5, 1.5) * pause, at - 1)
    return acknowledged


def inserter(uri: str) -> Put:
    """Return what writes orders into a collection by a connection of its own."""
    parts = urlsplit(uri)
    connection = socket.create_connection((parts.hostname or "127.0.0.1", parts.port or 27017), timeout=30)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def put(place: list[str], numbers: range) -> float:
        database, collection = place
        documents = workload.orders(numbers)
        command = {
            "insert": collection,
            "documents": documents,
            "writeConcern": {"w": "majority"},
            "$db": database,
        }
        body = bson.encode(command)
        connection.sendall(_HEAD.pack(_HEAD.size + len(body), 1, 0, _OP_MSG, 0, 0) + body)
        reply = connection.recv(65536)
        while len(reply) < 4 or len(reply) < int.from_bytes(reply[:4], "little"):
            if not (more := connection.recv(65536)):
                raise ConnectionError("mongod has closed the connection")
            reply += more
        at = time.perf_counter()
        answer: dict[str, Any] = bson.decode(reply[_HEAD.size :])
        if answer.get("n") != len(documents) or "writeErrors" in answer or "writeConcernError" in answer:
            raise RuntimeError(f"mongod did not insert: {answer}")
        return at

    return put


def _publisher(uri: str) -> Put:
    wire = Wire(uri)

    def put(place: list[str], numbers: range) -> float:
        (subject,) = place
        at = time.perf_counter()
        for number in numbers:
            wire.publish(subject, b'{"number": %d, "note": "%s"}' % (number, b"." * workload.BYTES))
        return at

    return put


if __name__ == "__main__":
    main()
