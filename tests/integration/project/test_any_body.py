"""Consumers survive any body: the examples, and what docs/consuming.md tells people to write.

The documents are what MongoDB stores and libraries stumble over. They are inserted, published by the service and read
by each program; what it makes of them has to be what the collection holds.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import bson
import pytest
import pytest_asyncio
from bson import Decimal128, Int64, MaxKey, ObjectId, Regex, Timestamp, json_util
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.datetime_ms import DatetimeMS
from bson.raw_bson import RawBSONDocument

from tests.integration.project.test_copies import EXAMPLES, ROOT, in_sqlite, plain
from tests.integration.project.test_examples import running
from tests.live import Live

YEAR_10000, YEAR_0 = DatetimeMS(253_402_300_800_000), DatetimeMS(-62_135_596_800_001)
LONGEST_KEY = 32_768
"""Bytes of a key that bbolt takes."""
SURROGATE = b"\xed\xa0\xbd"
"""Half of a surrogate pair, as if it were UTF-8; `###` stands for it below."""
LOOK_ALIKES: dict[str, Any] = {
    "oid": {"$oid": "x"},
    "oid of a number": {"$oid": 5},
    "date": {"$date": "never"},
    "date of an object": {"$date": {"$numberLong": "x"}},
    "numberInt": {"$numberInt": "5", "more": 1},
    "numberLong": {"$numberLong": "x"},
    "numberDouble": {"$numberDouble": "x"},
    "numberDecimal": {"$numberDecimal": "x"},
    "binary": {"$binary": "!!"},
    "binary of an object": {"$binary": {"base64": 1}},
    "uuid": {"$uuid": "x"},
    "timestamp": {"$timestamp": 5},
    "regularExpression": {"$regularExpression": 5},
    "code": {"$code": 5, "$scope": 6},
    "dbPointer": {"$dbPointer": "x"},
    "minKey": {"$minKey": 5},
}
"""Data that looks like a type and is none: a library that insists on types raises an error."""
DOCUMENTS: list[dict[str, Any]] = [
    {"_id": "dates", "far": YEAR_10000, "early": YEAR_0, "usual": DatetimeMS(1_767_225_600_123)},
    *({"_id": f"like {name}", "value": value} for name, value in LOOK_ALIKES.items()),
    {"_id": "like a good id", "value": {"$oid": "65a0c0ffee65a0c0ffee65a0"}},
    {"_id": "floats", "nan": math.nan, "zero": -0.0, "all": [math.inf, -math.inf, 1e300, 5e-324, 0.1]},
    {"_id": "integers", "values": [Int64(2**53 + 1), Int64(2**63 - 1), Int64(-(2**63)), 7, Int64(7)]},
    {"_id": "names", "a.b": 1, "$price": 2, "": 3, "x": {"$set": {"y.z": 1}, "$": 2, "ID": 3, "id": 4}, "_ID": 5},
    {"_id": "types", "all": [ObjectId(), Decimal128("NaN"), Regex("(", "s"), Timestamp(1, 2), MaxKey()]},
    {"_id": "twice", "twin1": 1, "twin2": 2},
    {"_id": "half a pair", "text": "a###b", "na###me": {"within": ["###"]}},
    {"_id": "text", "text": "\0 \u2028 </script> \x7f \U0010ffff \ufeff", "💡": "\\ud83d"},
    {"_id": "half ###"},
    {"_id": {"when": YEAR_10000, "value": math.nan}},
    {"_id": "\1" * 6_000},  # six times as long in JSON
]  # fmt: skip


def raw(document: dict[str, Any]) -> RawBSONDocument:
    """As it is stored, with text that no driver would let pass."""
    return RawBSONDocument(bson.encode(document).replace(b"###", SURROGATE).replace(b"twin2", b"twin1"))


def held(live: Live) -> dict[str, Any]:
    """What the collection holds, by `_id`, as pymongo writes it as relaxed Extended JSON: a second way to the same."""
    options = CodecOptions(
        tz_aware=True, datetime_conversion=DatetimeConversion.DATETIME_AUTO, unicode_decode_error_handler="replace"
    )
    texts = (
        json_util.dumps(document, json_options=json_util.RELAXED_JSON_OPTIONS)
        for document in live.orders.with_options(options).find()
    )
    documents = [json.loads(text) for text in texts]
    return {json.dumps(one["_id"]): one for one in documents}


def exactly(documents: dict[str, Any]) -> dict[str, str]:
    """In a form in which -0.0 is not 0.0."""
    return {key: json.dumps(document, sort_keys=True) for key, document in documents.items()}


@pytest_asyncio.fixture
async def live(mongo_uri: str, nats_url: str, unique: str) -> AsyncIterator[Live]:
    """A service that has published each of the documents."""
    async with Live(mongo_uri, nats_url, unique) as live:
        await live.add()
        live.orders.insert_many([raw(each) for each in DOCUMENTS])
        async with asyncio.timeout(30):
            while len(await live.messages()) < len(DOCUMENTS):
                await asyncio.sleep(0.05)
        yield live


async def test_the_consumer_in_python_prints_every_change(live: Live, nats_url: str) -> None:
    async with running(sys.executable, EXAMPLES / "consume.py", live.stream, nats_url) as program:
        lines = await program.lines(len(DOCUMENTS))
    assert {json.dumps(json.loads(line.split(" ", 2)[2])["_id"]) for line in lines} == held(live).keys()


async def test_the_copy_in_sqlite_is_the_collection(live: Live, nats_url: str, tmp_path: Path) -> None:
    path = tmp_path / "copy.db"
    async with running(sys.executable, EXAMPLES / "copy_to_sqlite.py", live.stream, path, nats_url) as program:
        await program.until(len(DOCUMENTS))
    assert exactly({key: document for (_, key), document in in_sqlite(path).items()}) == exactly(held(live))


@pytest.mark.parametrize("program", ["consume", "copy"])
async def test_the_programs_in_go_do_the_same(live: Live, nats_url: str, tmp_path: Path, program: str) -> None:
    if not os.environ.get("CHANGEWIRE_TEST_GO"):
        pytest.skip("building it takes up to a minute: make examples does it")
    if shutil.which("go") is None:
        pytest.skip("no go here")
    built, place = tmp_path / program, "." if program == "consume" else "./copy"
    building = await asyncio.create_subprocess_exec("go", "build", "-o", built, place, cwd=EXAMPLES / "go")
    async with asyncio.timeout(100):
        assert await building.wait() == 0
    if program == "consume":
        async with running(built, live.stream, nats_url) as running_one:
            lines = await running_one.lines(len(DOCUMENTS))
        assert {json.dumps(json.loads(line.split(" ", 2)[2])["_id"]) for line in lines} == held(live).keys()
        return
    path = tmp_path / "copy.db"
    async with running(built, live.stream, path, nats_url) as running_one:
        while f"up to {len(DOCUMENTS)}" not in (await running_one.lines(1))[0]:
            pass
    listed = subprocess.run([built, "--list", path], capture_output=True, text=True, check=True).stdout
    rows = [line.split("\t", 2) for line in listed.splitlines()]
    copied = {plain(key): json.loads(document) for _, key, document in rows}
    short = {key: document for key, document in held(live).items() if len(key) < LONGEST_KEY}
    assert exactly(copied) == exactly(short)


def snippets(language: str) -> list[str]:
    page = (ROOT / "docs" / "consuming.md").read_text()
    return re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)


async def test_what_the_page_tells_to_write_in_python_reads_every_body(live: Live) -> None:
    reading = [text for text in snippets("python") if "message.data" in text]
    assert len(reading) == 2
    plain_way, typed_way = reading
    bodies = [message.body for message in await live.messages()]
    read: dict[str, Any] = {}
    for body in bodies:
        message = SimpleNamespace(data=json.dumps(body).encode())
        names: dict[str, Any] = {"json": json, "message": message}
        exec(plain_way, names)  # the page's own words
        document = names["event"]["fullDocument"]
        read[json.dumps(document["_id"])] = document
        exec(typed_way, names)
        key = document["_id"]
        if isinstance(key, str):
            check_types(key, names["event"]["fullDocument"])
    assert exactly(read) == exactly(held(live))


def check_types(name: str, document: dict[str, Any]) -> None:
    """The way with types gives types where there are any, and leaves as it is what only looks like one."""
    kind = name.removeprefix("like ")
    if kind in LOOK_ALIKES:
        assert document["value"] == LOOK_ALIKES[kind]
    elif name == "like a good id":
        assert document["value"] == ObjectId("65a0c0ffee65a0c0ffee65a0"), "this cannot be told from an id"
    elif name == "dates":
        assert (document["far"], document["early"]) == (YEAR_10000, YEAR_0)
        assert document["usual"].year == 2026
    elif name == "floats":
        assert math.isnan(document["nan"])
        assert math.copysign(1, document["zero"]) == -1
    elif name == "integers":
        assert document["values"] == [2**53 + 1, 2**63 - 1, -(2**63), 7, 7]
    elif name == "half a pair":
        assert document["text"] == "a\ufffd\ufffd\ufffdb"


def test_the_library_that_insists_on_types_fails_as_the_page_says() -> None:
    """If this changes, the page may promise more."""
    failing = [name for name, value in LOOK_ALIKES.items() if not _loads(json.dumps({"value": value}))]
    assert {"oid", "date", "binary", "numberLong"} <= set(failing)
    assert not _loads('{"when": {"$date": {"$numberLong": "253402300800000"}}}')


def _loads(text: str) -> bool:
    try:
        json_util.loads(text)
    except Exception:
        return False
    return True


def test_what_the_page_tells_to_write_in_go_is_in_the_examples() -> None:
    """`make examples` builds and runs these."""
    sources = [" ".join(path.read_text().split()) for path in EXAMPLES.rglob("main.go")]
    reading = [text for text in snippets("go") if "Event" in text]
    assert len(reading) == 2
    assert [text for text in reading if not any(" ".join(text.split()) in source for source in sources)] == []
