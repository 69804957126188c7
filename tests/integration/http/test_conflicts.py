"""A watcher that would get in another's way is refused, and the way out that the refusal offers works."""

import re
from collections.abc import AsyncIterator

import pytest_asyncio

from tests.live import Live


@pytest_asyncio.fixture
async def service(mongo_uri: str, nats_url: str, unique: str) -> AsyncIterator[Live]:
    async with Live(mongo_uri, nats_url, unique) as live:
        yield live


def place_offered(detail: str) -> dict[str, str]:
    """The stream and the subject that a refusal says would do."""
    offered = dict(re.findall(r"sink\.(stream|subject) '([^']+)'", detail))
    assert set(offered) == {"stream", "subject"}, detail
    return offered


async def test_a_second_watcher_of_a_name_is_409_and_the_first_runs_on(service: Live) -> None:
    await service.add()
    before = await service.facts()
    other = {**service.definition(), "source": {"database": f"other_{service.unique}", "collection": "x"}}
    assert "PUT /watchers/orders" in await service.refused(409, "POST", "/watchers", json=other)
    assert (await service.facts())["watchers"] == before["watchers"]
    service.insert(1)
    await service.seen("1")


async def test_overlapping_subjects_are_409_and_what_the_answer_offers_works(service: Live) -> None:
    await service.add("first")
    other = f"other_{service.unique}"
    second = {
        "name": "second",
        "source": {"database": other, "collection": service.collection},
        "checkpoint": {"collection": f"second_{service.unique}"},
    }
    detail = await service.refused(409, "POST", "/watchers", json=second)
    assert "watcher first" in detail
    offered = place_offered(detail)
    await service.call("POST", "/watchers", 201, json={**second, "sink": offered})
    await service.reaches("RUNNING", "second")
    service.mongo[other][service.collection].insert_one({"_id": 1})
    await service.seen("1", stream=offered["stream"])
    assert await service.messages() == []


async def test_what_an_overlap_is_offered_works_too_where_the_template_names_no_stream(service: Live) -> None:
    subject = f"events_{service.unique}.{{operation}}"
    await service.add("first", sink={"subject": subject})
    second = {
        "name": "second",
        "source": {"database": service.database, "collection": f"more_{service.unique}"},
        "sink": {"subject": subject},
    }
    offered = place_offered(await service.refused(409, "POST", "/watchers", json=second))
    await service.call("POST", "/watchers", 201, json={**second, "sink": offered})
    await service.reaches("RUNNING", "second")


async def test_the_template_that_an_overlap_is_offered_works_where_the_stream_takes_it(service: Live) -> None:
    await service.streams.create(service.stream, subjects=[f"{service.stream}.>"])
    await service.add("first")
    other = f"other_{service.unique}"
    second = {
        "name": "second",
        "source": {"database": other, "collection": service.collection},
        "checkpoint": {"collection": f"second_{service.unique}"},
    }
    template = re.findall(r"such as '([^']+)'", await service.refused(409, "POST", "/watchers", json=second))[0]
    await service.call("POST", "/watchers", 201, json={**second, "sink": {"subject": template}})
    await service.reaches("RUNNING", "second")
    service.insert(1)
    await service.seen("1")
    service.mongo[other][service.collection].insert_one({"_id": 2})
    await service.seen("1", "2")


async def test_one_collection_twice_on_one_stream_is_409_since_the_ids_would_be_taken_for_duplicates(
    service: Live,
) -> None:
    await service.streams.create(service.stream, subjects=[f"{service.stream}.>"])
    await service.add("first")
    second = service.definition(
        "second", checkpoint={"collection": f"second_{service.unique}"}, sink={"subject": "{stream}.again.{operation}"}
    )
    detail = await service.refused(409, "POST", "/watchers", json=second)
    assert "watcher first" in detail
    offered = place_offered(detail)
    await service.call("POST", "/watchers", 201, json={**second, "sink": offered})
    await service.reaches("RUNNING", "second")
    service.insert(1)
    await service.seen("1")
    await service.seen("1", stream=offered["stream"])


async def test_a_new_life_under_another_subject_publishes_though_the_stream_knows_the_tokens(service: Live) -> None:
    await service.streams.create(service.stream, subjects=[f"{service.stream}.>"])
    await service.add()
    service.insert(1)
    await service.seen("1")
    await service.call("DELETE", "/watchers/orders?checkpoint=delete", 204)
    elsewhere = service.definition(sink={"subject": "{stream}.again.{operation}"}, start={"at": "earliest"})
    await service.call("POST", "/watchers", 201, json=elsewhere)
    assert [":" in message.id for message in await service.seen("1", "1")] == [False, True]
    assert (await service.reaches("RUNNING"))["status"]["events"]["published"] == 1


async def test_the_same_checkpoint_place_is_409_and_the_collection_offered_works(service: Live) -> None:
    place = {"collection": service.collection}
    await service.add("first", checkpoint=place)
    other = {
        "name": "second",
        "source": {"database": f"other_{service.unique}", "collection": service.collection},
        "sink": {"stream": f"{service.stream}_2"},
        "checkpoint": place,
    }
    detail = await service.refused(409, "POST", "/watchers", json=other)
    assert "watcher first" in detail
    assert f"resume-tokens.{service.collection}" in detail
    (offered,) = re.findall(r"such as '([^']+)'", detail)
    await service.call("POST", "/watchers", 201, json={**other, "checkpoint": {"collection": offered}})
    await service.reaches("RUNNING", "second")


async def test_an_existing_stream_that_does_not_cover_the_subjects_is_409_and_stays_as_it_is(service: Live) -> None:
    await service.streams.create(service.stream, subjects=[f"{service.stream}.insert"])
    before = await service.facts()
    detail = await service.refused(409, "POST", "/watchers", json=service.definition())
    assert f"{service.stream}.*" in detail
    assert await service.facts() == before


async def test_subjects_that_another_stream_takes_are_409_naming_that_stream(service: Live) -> None:
    name = f"ALL_{service.unique}".upper()
    await service.streams.create(name, subjects=[f"{service.stream}.>"])
    before = await service.facts()
    assert name in await service.refused(409, "POST", "/watchers", json=service.definition())
    assert await service.facts() == before
    await service.add(sink={"stream": name, "subject": f"{service.stream}.{{operation}}"})
    service.insert(1)
    await service.seen("1", stream=name)


async def test_the_limits_of_an_existing_stream_are_left_alone(service: Live) -> None:
    await service.streams.create(service.stream, max_msgs=1000, max_age=3600 * 10**9)
    await service.add(sink={"max_age_seconds": 5, "duplicate_window_seconds": 5, "max_bytes": 5})
    config = await service.streams.config(service.stream)
    assert config is not None
    assert (config["max_msgs"], config["max_age"], config["max_bytes"]) == (1000, 3600 * 10**9, -1)
    assert config["allow_atomic"]
