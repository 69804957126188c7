"""The native transcoder: what it makes itself, what it leaves to the reference, and that it is used where it was built.

That it makes what the reference makes is in `test_codec.py` and in the properties, which run for both.
"""

import asyncio
import base64
import json
import sys
import threading
import types
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import bson
import pytest

import app
from app import main
from app.config.settings import SettingsError, load
from app.domain.errors import EventNotEncodable
from app.domain.events import Change
from app.formats import extended_json, native
from app.pipeline.batch_encoder import THREAD_BYTES, Codec
from app.pipeline.capture import Capture
from app.ports import SourceBatch
from tests.encoders import needs_native, raw_events, transcode
from tests.fakes import FakeOplog, FakeSource, FakeStream
from tests.unit.deployment import capture, until

CASES = json.loads((Path(__file__).parents[2] / "data" / "extjson_cases.json").read_text(encoding="utf-8"))
LEFT = ("invalid UTF-8", "nested 2", "nested 3", "DBPointer", "scope")
"""What the reference does for both: the names of such cases have one of these in them."""


def event(token: str = "82", **fields: object) -> bytes:
    return bson.encode({"_id": {"_data": token}, "operationType": "insert", **fields})


@needs_native
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_all_but_the_obsolete_the_damaged_and_the_deep_is_native(case: dict[str, str]) -> None:
    (change,) = transcode([base64.b64decode(case["bson"])])
    assert (change is None) == any(what in case["name"] for what in LEFT)


@needs_native
@pytest.mark.parametrize("case", [c for c in CASES if c["name"] != "duplicate keys"], ids=lambda case: case["name"])
def test_it_writes_the_bytes_that_the_reference_writes(case: dict[str, str]) -> None:
    raw = base64.b64decode(case["bson"])
    (change,) = transcode([raw], ":2")
    assert change is None or change == extended_json.encode(raw, ":2")


@needs_native
def test_as_deep_as_mongodb_stores_is_native_and_hostile_depth_is_not() -> None:
    deep: dict[str, object] = {}
    for _ in range(180):
        deep = {"d": deep}
    raw = event(fullDocument=deep)
    assert transcode([raw]) == [extended_json.encode(raw)]
    depth, empty = 100_000, b"\x05\x00\x00\x00\x00"
    heads = ((len(empty) + 8 * level).to_bytes(4, "little") + b"\x03d\x00" for level in range(depth, 0, -1))
    nested = b"".join(heads) + empty + b"\x00" * depth
    hostile = event(fullDocument=1).replace(b"\x10fullDocument\x00\x01\x00\x00\x00", b"\x03fullDocument\x00" + nested)
    hostile = len(hostile).to_bytes(4, "little") + hostile[4:]
    assert transcode([raw, hostile, raw]) == [extended_json.encode(raw), None, extended_json.encode(raw)]


@needs_native
def test_a_batch_larger_than_a_portion_keeps_its_order() -> None:
    events = [event(f"82{number:06}", fullDocument={"v": "x" * 20_000}) for number in range(300)]
    events[150] = events[150][:-1]
    made = transcode(events)
    assert [change and change.token for change in made] == [
        None if number == 150 else f"82{number:06}" for number in range(300)
    ]
    assert made[-1] == extended_json.encode(events[-1])


@needs_native
def test_it_lets_other_threads_run_meanwhile() -> None:
    events = [event(fullDocument={"v": ["x" * 50] * 1000})] * 300
    before = sys.getswitchinterval()
    sys.setswitchinterval(60)  # a thread is not interrupted: others run when it lets go of the GIL by itself
    try:
        for _ in range(50):
            begun, ended = threading.Event(), threading.Event()

            def work(begun: threading.Event = begun, ended: threading.Event = ended) -> None:
                begun.set()
                transcode(events)
                ended.set()

            thread = threading.Thread(target=work)
            thread.start()
            begun.wait()
            overlapped = not ended.is_set()
            thread.join()
            if overlapped:
                return
    finally:
        sys.setswitchinterval(before)
    pytest.fail("nothing else ran while a batch was transcoded")


@needs_native
def test_where_it_was_built_the_service_uses_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main.codec_of(load(environ={})).transcode is not None
    assert main.codec_of(load(environ={"CHANGEWIRE_CODEC": "native"})).transcode is not None


def test_either_can_be_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main.codec_of(load(environ={"CHANGEWIRE_CODEC": "Python"})).transcode is None
    monkeypatch.setattr(native, "absence", lambda: "it was not built")
    assert main.codec_of(load(environ={})).transcode is None
    with pytest.raises(SettingsError, match=r"CHANGEWIRE_CODEC=native: it was not built\. Example: auto"):
        load(environ={"CHANGEWIRE_CODEC": "native"})


def test_a_module_that_is_older_than_these_sources_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    older = types.ModuleType("app._native")
    older.transcode = must_not_be_asked  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "app._native", older)
    monkeypatch.setattr(app, "_native", older, raising=False)
    codec = main.codec_of(load(environ={}))
    assert (codec.transcode, codec.pack) == (None, None)
    with pytest.raises(
        SettingsError,
        match=r"it was built from an older version \(it has no pack and no pack_rows and no split and no Subjects\)",
    ):
        load(environ={"CHANGEWIRE_CODEC": "native"})
    with pytest.raises(ImportError, match="has no pack"):
        native.packer("native")


def must_not_be_asked(raw: bytes, id_suffix: str) -> Change:
    raise AssertionError("the reference was asked for what had been transcoded")


async def publish_a_hundred(one: Capture, oplog: FakeOplog, stream: FakeStream, size: int) -> None:
    """Let a hundred changes happen at once, each with so many bytes of text, and see them on the stream in order."""
    opened = asyncio.Event()
    running = asyncio.create_task(one.run(opened.set))
    await until(lambda: opened.is_set() or running.done())
    for _ in range(100):
        oplog.happen(text="x" * size)
    await until(lambda: len(stream.published()) == 100 or running.done())
    one.stop()
    await running
    assert stream.published() == oplog.tokens


@needs_native
@pytest.mark.parametrize("size", [10, 2_000])
async def test_what_is_transcoded_is_published_in_its_order(size: int) -> None:
    threads: set[bool] = set()
    transcoder = native.transcoder("auto")
    assert transcoder is not None

    def observed(events: Sequence[bytes], id_suffix: str) -> list[Change | None]:
        threads.add(threading.current_thread() is threading.main_thread())
        return transcoder(events, id_suffix)

    oplog, stream = FakeOplog(), FakeStream()
    one = capture(
        stream,
        FakeSource(oplog, 500, 0.01),
        codec=Codec(must_not_be_asked, extended_json.reduced, extended_json.identify, extended_json.names_of, observed),
    )
    await publish_a_hundred(one, oplog, stream, size)
    assert threads == {size * 100 < THREAD_BYTES}  # small batches are not worth a thread


class InOnePiece(FakeSource):
    """A source whose batches come as replies do."""

    async def read(self) -> SourceBatch:
        batch = await super().read()
        return replace(batch, events=raw_events(batch.events))


@needs_native
@pytest.mark.parametrize("size", [10, 2_000])
async def test_what_is_packed_is_published_in_its_order(size: int) -> None:
    def must_not_be_asked_either(events: Sequence[bytes], id_suffix: str) -> list[Change | None]:
        raise AssertionError("changes were made one by one of what had been packed")

    oplog, stream = FakeOplog(), FakeStream()
    codec = Codec(
        must_not_be_asked, extended_json.reduced, extended_json.identify, extended_json.names_of,
        must_not_be_asked_either, native.packer("native"),
    )  # fmt: skip
    one = capture(stream, InOnePiece(oplog, 500, 0.01), codec=codec)
    await publish_a_hundred(one, oplog, stream, size)


async def test_what_is_left_is_asked_of_the_reference_in_its_place() -> None:
    def half(events: Sequence[bytes], id_suffix: str) -> list[Change | None]:
        return [extended_json.encode(raw, id_suffix) if index % 2 else None for index, raw in enumerate(events)]

    oplog, stream = FakeOplog(), FakeStream()
    one = capture(
        stream,
        FakeSource(oplog, 500, 0.01),
        codec=Codec(extended_json.encode, extended_json.reduced, extended_json.identify, extended_json.names_of, half),
    )
    opened = asyncio.Event()
    running = asyncio.create_task(one.run(opened.set))
    await opened.wait()
    for _ in range(9):
        oplog.happen()
    await until(lambda: len(stream.published()) == 9)
    one.stop()
    await running
    assert stream.published() == oplog.tokens


@needs_native
async def test_an_event_that_neither_can_read_ends_the_run_with_the_references_reason() -> None:
    oplog, stream = FakeOplog(), FakeStream()
    one = capture(
        stream,
        FakeSource(oplog, 500, 0.01),
        codec=Codec(
            extended_json.encode,
            extended_json.reduced,
            extended_json.identify,
            extended_json.names_of,
            native.transcoder("auto"),
        ),
    )
    opened = asyncio.Event()
    running = asyncio.create_task(one.run(opened.set))
    await opened.wait()
    oplog.happen()
    oplog.events[-1] = (oplog.events[-1][0], oplog.events[-1][1][:-1])
    with pytest.raises(EventNotEncodable, match="cannot be read"):
        await running
