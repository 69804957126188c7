"""A real mongod's change streams over a collection that is dropped, renamed, and read with every option."""

from typing import Any

import pymongo
import pytest

from app.domain.errors import (
    SourceRefused,
    TransientError,
)
from app.domain.tokens import cluster_time
from app.domain.watcher import Start
from app.ports import ChangeSource
from tests.integration.mongodb.bench import Bench, last_is, opened, read_until, said


async def no_more(source: ChangeSource) -> None:
    assert (await source.read()).events == []


async def test_a_dropped_and_re_created_collection_is_watched_on_from_every_position(bench: Bench) -> None:
    source = bench.source()
    await opened(source)
    bench.insert(1, 2, 3)
    bench.orders.drop()
    bench.insert(4)
    bench.orders.drop()
    bench.insert(5)
    events = await read_until(source, last_is(5))
    whole = [1, 2, 3, "drop", "invalidate", 4, "drop", "invalidate", 5]
    assert said(events) == whole
    for reached, event in enumerate(events[:-1], 1):
        await source.open(event["_id"]["_data"])
        assert said(await read_until(source, last_is(5))) == whole[reached:]
    await source.close()


async def test_a_renamed_collection_is_watched_on_under_its_name(bench: Bench) -> None:
    source = bench.source()
    await opened(source)
    bench.insert(1)
    bench.orders.rename("archive")
    bench.database.archive.insert_one({"_id": 99})
    bench.insert(2)
    assert said(await read_until(source, last_is(2))) == [1, "rename", "invalidate", 2]
    await source.close()


async def test_an_invalidate_that_the_pipeline_hides_does_not_end_the_reading(bench: Bench) -> None:
    source = bench.source(pipeline=({"$match": {"operationType": "insert"}},))
    await opened(source)
    bench.insert(1)
    bench.orders.drop()
    bench.insert(2)
    assert said(await read_until(source, last_is(2))) == [1, 2]
    await source.close()


async def test_a_transaction_resumed_in_its_middle_is_neither_torn_nor_repeated(bench: Bench) -> None:
    bench.insert(0)
    source = bench.source()
    await opened(source)
    with bench.client.start_session() as session, session.start_transaction():
        for key in range(1, 6):
            bench.database.orders.insert_one({"_id": key}, session=session)
    events = await read_until(source, last_is(5))
    assert len({cluster_time(event["_id"]["_data"]) for event in events}) == 1
    for reached, event in enumerate(events[:-1], 1):
        await source.open(event["_id"]["_data"])
        assert said(await read_until(source, last_is(5))) == [1, 2, 3, 4, 5][reached:]
    await source.close()


async def test_events_on_both_sides_of_four_kilobytes_are_whole_and_plain_bytes(bench: Bench) -> None:
    source = bench.source()
    await opened(source)
    for key, size in enumerate((10, 3_500, 4_096, 9_000, 300_000), 1):
        bench.orders.insert_one({"_id": key, "text": "x" * size})
    sizes = [len(e["fullDocument"]["text"]) for e in await read_until(source, last_is(5))]
    assert sizes == [10, 3_500, 4_096, 9_000, 300_000]
    await source.close()


async def test_a_token_the_changed_options_hide_is_replaced_by_its_time_without_loss_or_repeat(bench: Bench) -> None:
    expanded, plain = bench.source(show_expanded_events=True), bench.source()
    await opened(expanded)
    bench.insert(1)
    bench.orders.create_index("a")
    bench.insert(2)
    events = await read_until(expanded, last_is(2))
    await expanded.close()
    assert said(events) == ["create", 1, "createIndexes", 2]
    hidden = events[2]["_id"]
    with pytest.raises(pymongo.errors.OperationFailure) as refused, bench.orders.watch(start_after=hidden) as stream:
        stream.try_next()
    assert refused.value.code == 280

    await plain.prepare()
    await plain.open(hidden["_data"])
    assert said(await read_until(plain, last_is(2))) == [2]
    await no_more(plain)
    await plain.open(events[0]["_id"]["_data"])
    assert said(await read_until(plain, last_is(2))) == [1, 2]
    await plain.close()


async def test_a_hidden_token_with_nothing_behind_it_yet_does_not_lose_what_follows(bench: Bench) -> None:
    expanded, plain = bench.source(show_expanded_events=True), bench.source()
    await opened(expanded)
    bench.orders.create_index("a")
    hidden = (await read_until(expanded, lambda events: len(events) == 2))[-1]["_id"]["_data"]
    await expanded.close()
    await plain.prepare()
    await plain.open(hidden)
    await plain.read()
    bench.insert(1, 2)
    assert said(await read_until(plain, last_is(2))) == [1, 2]
    await plain.close()


@pytest.mark.parametrize(
    "pipeline",
    [({"$nonsense": 1},), ({"$match": {"$expr": {"$nonsense": 1}}},), ({"$out": "elsewhere"},), ({"$match": 1},)],
)
async def test_a_pipeline_that_mongodb_refuses_is_refused_with_its_words(
    bench: Bench, pipeline: tuple[dict[str, Any], ...]
) -> None:
    good, bad = bench.source(), bench.source(pipeline=pipeline)
    position = await opened(good)
    await bad.prepare()
    with pytest.raises(SourceRefused, match="pipeline"):
        await bad.open(position)
    with pytest.raises(SourceRefused, match="pipeline"):
        await bad.locate(Start("latest"))
    await good.close()


@pytest.mark.parametrize("stage", [{"$project": {"_id": 0}}, {"$set": {"_id._data": "82AB"}}])
async def test_a_pipeline_that_spoils_the_token_is_refused_at_the_first_event(
    bench: Bench, stage: dict[str, Any]
) -> None:
    source = bench.source(pipeline=(stage,))
    await opened(source)
    bench.insert(1)
    with pytest.raises(SourceRefused, match="_id"):
        await read_until(source, lambda events: bool(events))
    await source.close()


@pytest.mark.parametrize(
    ("stage", "field"),
    [
        ({"$replaceWith": {"$cond": ["$fullDocument.plain", "$$ROOT", {"_id": "$_id"}]}}, "operationType"),
        ({"$set": {"operationType": {"$ifNull": ["$fullDocument.operation", "$operationType"]}}}, "operationType"),
        ({"$set": {"clusterTime": {"$ifNull": ["$fullDocument.operation", "$clusterTime"]}}}, "clusterTime"),
        ({"$set": {"ns.coll": {"$ifNull": ["$fullDocument.operation", "$ns.coll"]}}}, "ns"),
        ({"$project": {"documentKey": {"$cond": ["$fullDocument.plain", 1, "$$REMOVE"]}}}, "operationType"),
        ({"$set": {"documentKey": {"$ifNull": ["$fullDocument.operation", "$documentKey"]}}}, "documentKey"),
    ],
)
async def test_a_pipeline_that_spoils_some_events_is_refused_at_the_first_of_them(
    bench: Bench, stage: dict[str, Any], field: str
) -> None:
    source = bench.source(pipeline=(stage,))
    await opened(source)
    if "$set" in stage:
        bench.orders.insert_one({"_id": 1})
        await read_until(source, lambda events: bool(events))
    bench.orders.insert_one({"_id": 2, "operation": "mine"})
    with pytest.raises(SourceRefused, match=f"pipeline of .* the event's {field}, "):
        await read_until(source, lambda events: False)
    await source.close()


async def test_an_expression_that_fails_on_a_document_does_not_quote_it(bench: Bench) -> None:
    source = bench.source(pipeline=({"$set": {"n": {"$toInt": "$fullDocument.name"}}},))
    await opened(source)
    bench.orders.insert_one({"_id": 1, "name": "secret"})
    with pytest.raises(TransientError) as failed:
        await read_until(source, lambda events: bool(events))
    assert "Failed to parse number" in str(failed.value)
    assert "secret" not in str(failed.value)
    await source.close()


async def test_images_are_switched_on_for_a_new_and_for_an_old_collection(bench: Bench) -> None:
    source = bench.source(pre_and_post_images=True)
    await opened(source)
    for key in (1, 2):  # the collection that prepare made, then one that was there without images
        bench.orders.insert_one({"_id": key, "n": 1})
        bench.orders.update_one({"_id": key}, {"$set": {"n": 2}})
        events = await read_until(source, lambda events: bool(events) and events[-1]["operationType"] == "update")
        assert events[-1]["fullDocumentBeforeChange"] == {"_id": key, "n": 1}
        assert events[-1]["fullDocument"] == {"_id": key, "n": 2}
        await source.close()
        bench.orders.drop()
        bench.database.create_collection("orders")
        await opened(source)
    await source.prepare()
    await source.close()


async def test_a_missing_required_pre_image_is_permanent(bench: Bench) -> None:
    source = bench.source(full_document_before_change="required")
    await opened(source)
    bench.insert(1)
    bench.orders.delete_one({"_id": 1})
    with pytest.raises(SourceRefused, match="pre-image"):
        await read_until(source, lambda events: len(events) > 1)
    await source.close()


async def test_full_document_left_out_is_the_servers_default(bench: Bench) -> None:
    source = bench.source(full_document=None, full_document_before_change=None)
    await opened(source)
    bench.insert(1)
    bench.orders.update_one({"_id": 1}, {"$set": {"n": 1}})
    update = (await read_until(source, lambda events: len(events) == 2))[-1]
    assert "fullDocument" not in update
    assert "fullDocumentBeforeChange" not in update
    await source.close()
