"""A batch made into changes: in one piece or event by event, what comes out is the same."""

from dataclasses import replace
from typing import Any

import bson
import pytest

from app.domain.errors import MessageTooLarge, PermanentError
from app.domain.events import Change
from app.domain.packed import PackedChanges
from app.domain.raw_bson import key_of
from app.domain.row_events import RowHead
from app.domain.tokens import ClusterTime
from app.domain.watcher import Sink, Source, Watcher
from app.formats import native
from app.formats.extended_json import encode, identify, names_of, reduced
from app.pipeline.batch_encoder import BatchEncoder, Codec
from app.pipeline.run_statistics import RunStatistics
from app.ports import Rows, SourceBatch
from tests.encoders import needs_native, raw_events
from tests.fakes import FakeSink, FakeStream, NullObserver, event_token, raw_event
from tests.unit.deployment import ORDERS

LIMIT = 20_000

pytestmark = needs_native


def batch(*events: bytes, **more: Any) -> SourceBatch:
    return SourceBatch(raw_events(events), event_token(99), 1_000, sum(map(len, events)), **more)


def encoder(
    *, packs: bool, oversize: str = "claim_check", watcher: Watcher = ORDERS
) -> tuple[BatchEncoder, RunStatistics]:
    watcher = replace(watcher, sink=replace(watcher.sink, oversize=oversize))  # type: ignore[arg-type]
    pack, pack_rows = (native.packer("native"), native.row_packer("native")) if packs else (None, None)
    transcode = native.transcoder("native") if packs else None
    codec = Codec(encode, reduced, identify, names_of, transcode, pack, pack_rows)
    statistics = RunStatistics()
    return BatchEncoder(watcher, codec, FakeSink(FakeStream(), watcher, LIMIT), statistics, NullObserver()), statistics


async def both(given: SourceBatch, last: str = event_token(0), **how: Any) -> list[Change]:
    """What becomes of a batch, which is the same where it is packed and where Python alone encodes."""
    packing, packed_statistics = encoder(packs=True, **how)
    listing, listed_statistics = encoder(packs=False, **how)
    listed = await listing.encode(replace(given), ":2", last)
    assert isinstance(listed, list)
    assert list(await packing.encode(replace(given), ":2", last)) == listed
    assert packed_statistics.skipped == listed_statistics.skipped
    return listed


async def test_a_regular_batch_is_one_piece_and_large_or_small_the_same() -> None:
    for size in (1, 3_000):
        given = batch(*(raw_event(moment, text="x" * size) for moment in range(1, 101)))
        packed = await encoder(packs=True)[0].encode(replace(given), ":2", event_token(0))
        assert isinstance(packed, PackedChanges)
        assert [change.id for change in packed] == [f"{event_token(moment)}:2" for moment in range(1, 101)]
        assert len(await both(given)) == 100


async def test_the_raw_events_are_freed_as_soon_as_they_are_encoded() -> None:
    for packs in (True, False):
        given = batch(raw_event(1), raw_event(2))
        changes = await encoder(packs=packs)[0].encode(given, "", event_token(0))
        assert (len(given.events), len(changes), given.size > 0) == (0, 2, True)


async def test_operations_that_are_not_selected_are_left_out_and_counted() -> None:
    given = batch(raw_event(1), raw_event(2, "drop"), raw_event(3, "update"), raw_event(4, "rename"))
    assert [change.operation for change in await both(given)] == ["insert", "update"]
    one, statistics = encoder(packs=True)
    assert isinstance(await one.encode(replace(given), "", event_token(0)), PackedChanges)
    assert statistics.skipped == 2
    assert await both(batch(raw_event(1, "drop"))) == []


async def test_a_batch_with_a_large_change_or_a_damaged_event_is_looked_at_event_by_event() -> None:
    large, small, damaged = raw_event(2, text="x" * (LIMIT + 1)), raw_event(1), raw_event(3, "update")
    changes = await both(batch(small, large, damaged))
    assert [change.pointer is not None for change in changes] == [False, True, False]
    strange = raw_event(4).replace(b"shop\x00", b"sh\xffp\x00")
    assert "sh\ufffdp" in (await both(batch(small, strange)))[1].body.decode()


async def test_between_surely_and_too_large_it_is_published_as_it_is() -> None:
    (change,) = await both(batch(raw_event(1, text="x" * (LIMIT - 1000))))
    assert change.pointer is None
    assert len(change.body) < LIMIT


async def test_an_order_that_cannot_be_kept_ends_the_run_either_way() -> None:
    for packs in (True, False):
        with pytest.raises(PermanentError, match="the order cannot be kept"):
            await encoder(packs=packs)[0].encode(batch(raw_event(2)), "", event_token(2))
        one = encoder(packs=packs)[0]
        assert len(await one.encode(batch(raw_event(2), raw_event(1)), "", event_token(0))) == 1
        assert "the order cannot be kept" in str(one.failure)


async def test_a_large_change_that_is_to_fail_does_so_either_way() -> None:
    given = batch(raw_event(1, text="x" * (LIMIT + 1)))
    for packs in (True, False):
        with pytest.raises(MessageTooLarge):
            await encoder(packs=packs, oversize="fail")[0].encode(given, "", event_token(0))


async def test_a_reduced_event_says_so_in_its_headers() -> None:
    (change,) = await both(batch(raw_event(1), reduced=("fullDocument",)))
    assert change.headers == (("Changewire-Reduced", "fullDocument"),)


async def test_what_comes_before_a_change_that_cannot_be_published_is_kept_either_way() -> None:
    given = batch(raw_event(1), raw_event(2, "drop"), raw_event(3, text="x" * (LIMIT + 1)), raw_event(4))
    for packs in (True, False):
        one, statistics = encoder(packs=packs, oversize="fail")
        cut = replace(given)
        assert [change.token for change in await one.encode(cut, "", event_token(0))] == [event_token(1)]
        assert isinstance(one.failure, MessageTooLarge)
        assert cut.position == event_token(2)
        assert statistics.skipped == 1


# Where each collection has a subject of its own

SHOP = Watcher("shop", Source("shop"), Sink("SHOP", "{stream}.{collection}.{operation}"))
BARE = replace(SHOP, sink=replace(SHOP.sink, subject="{collection}.{operation}"))


def of(moment: int, collection: str, **fields: Any) -> bytes:
    return raw_event(moment, ns={"db": "shop", "coll": collection}, **fields)


async def test_each_change_of_a_database_gets_the_subject_of_its_collection() -> None:
    collections = ["orders", "app.events", "$a b", "orders", "ü"] * 20
    given = batch(*(of(moment, name) for moment, name in enumerate(collections, 1)))
    expected = [SHOP.subjects.subject("shop", name, "insert") for name in collections]
    assert [change.subject for change in await both(given, watcher=SHOP)] == expected
    assert isinstance(await encoder(packs=True, watcher=SHOP)[0].encode(given, ":2", event_token(0)), PackedChanges)


async def test_a_change_that_is_too_large_for_a_message_keeps_its_subject_as_a_pointer() -> None:
    changes = await both(batch(of(1, "a"), of(2, "b", text="x" * 2 * LIMIT)), watcher=SHOP)
    assert [(change.subject, change.pointer is None) for change in changes] == [
        ("SHOP.a.insert", True), ("SHOP.b.insert", False)
    ]  # fmt: skip


async def test_a_change_whose_subject_is_reserved_is_a_dead_letter_where_those_are_kept() -> None:
    given = batch(of(1, "a"), of(2, "_INBOX"), of(3, "b"))
    changes = await both(given, watcher=BARE, oversize="dead_letter")
    assert [change.letter is None for change in changes] == [True, False, True]
    letter = changes[1].letter
    assert letter is not None
    assert letter.error == "its subject _INBOX.insert is reserved by NATS; another sink.subject may fit"


@pytest.mark.parametrize("oversize", ["claim_check", "fail"])
@pytest.mark.parametrize("packs", [True, False])
async def test_a_change_whose_subject_is_reserved_ends_the_run_elsewhere(packs: bool, oversize: str) -> None:
    one, _ = encoder(packs=packs, oversize=oversize, watcher=BARE)
    assert len(await one.encode(batch(of(1, "a"), of(2, "_INBOX"), of(3, "b")), "", event_token(0))) == 1
    assert isinstance(one.failure, MessageTooLarge)
    assert "_INBOX.insert is reserved by NATS" in str(one.failure)


async def test_a_letter_says_which_collection_it_is_of_where_there_are_several() -> None:
    given = batch(of(1, "app.events", text="x" * 2 * LIMIT))
    for watcher, namespace in ((SHOP, "shop.app.events"), (ORDERS, None)):
        ((letter),) = [change.letter for change in await both(given, watcher=watcher, oversize="dead_letter")]
        assert letter is not None
        assert letter.namespace == namespace


HEAD = RowHead(f"{event_token(1)}:0:s:0123456789ab:00000000.", ClusterTime(17, 4), ("shop", "orders"))


def rows(*sizes: int) -> Rows:
    documents = [bson.encode({"_id": number, "text": "x" * size}) for number, size in enumerate(sizes)]
    return Rows(raw_events(documents), [key_of(each) for each in documents], sum(map(len, documents)))


async def test_rows_are_one_piece_and_the_same_where_python_alone_encodes() -> None:
    given = rows(*[1] * 50, *[3_000] * 60)
    packed = await encoder(packs=True)[0].chunk(given, HEAD, "0123456789ab", event_token(1))
    assert isinstance(packed, PackedChanges)
    assert list(packed) == await encoder(packs=False)[0].chunk(given, HEAD, "0123456789ab", event_token(1))
    assert packed[-1].id == packed[-1].token == f"{HEAD.before}000109"
    assert packed[-1].headers == (("Changewire-Snapshot", "0123456789ab"),)


async def test_a_row_too_large_for_a_message_is_a_pointer_or_ends_the_run_and_not_the_watcher() -> None:
    given = rows(1, LIMIT + 1, 1)
    for packs in (True, False):
        found = await encoder(packs=packs)[0].chunk(given, HEAD, "0123456789ab", event_token(1))
        assert [change.pointer is not None for change in found] == [False, True, False]
        assert all(change.headers == (("Changewire-Snapshot", "0123456789ab"),) for change in found)
        failing, _ = encoder(packs=packs, oversize="fail")
        with pytest.raises(MessageTooLarge):
            await failing.chunk(given, HEAD, "0123456789ab", event_token(1))
        assert failing.failure is None
