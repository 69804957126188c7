"""The calls that add, show, replace, stop and remove watchers, judged by what the servers hold afterwards."""

import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.live import Live, until


@pytest_asyncio.fixture
async def service(mongo_uri: str, nats_url: str, unique: str) -> AsyncIterator[Live]:
    async with Live(mongo_uri, nats_url, unique) as live:
        yield live


def place_offered(detail: str) -> dict[str, str]:
    """The stream and the subject that a refusal says would do."""
    offered = dict(re.findall(r"sink\.(stream|subject) '([^']+)'", detail))
    assert set(offered) == {"stream", "subject"}, detail
    return offered


async def test_add_answers_201_with_its_location_and_every_default(service: Live) -> None:
    answer = await service.call("POST", "/watchers", 201, json=service.definition())
    assert answer.headers["Location"] == "/watchers/orders"
    posted = answer.json()
    status = posted.pop("status")
    assert set(status) >= {"state", "since", "reason", "last_error", "restarts", "events", "rates"}
    assert posted == {
        "name": "orders",
        "source": {
            "database": service.database,
            "collection": service.collection,
            "pipeline": [],
            "full_document": "updateLookup",
            "full_document_before_change": "whenAvailable",
            "pre_and_post_images": False,
            "show_expanded_events": False,
        },
        "sink": {
            "stream": service.stream,
            "subject": "{stream}.{operation}",
            "operations": ["insert", "update", "replace", "delete"],
            "oversize": "claim_check",
            "replicas": 1,
            "max_age_seconds": 0,
            "max_bytes": -1,
            "duplicate_window_seconds": 120,
            "stream_settings": "changewire",
        },
        "checkpoint": {
            "database": "resume-tokens",
            "collection": service.collection,
            "capped": False,
            "size_in_bytes": 0,
        },
        "start": {"at": "latest"},
        "on_history_lost": "fail",
        "paused": False,
    }
    watcher = await service.reaches("RUNNING")
    watcher.pop("status")
    assert watcher == posted
    config = await service.streams.config(service.stream)
    assert config is not None
    assert (config["subjects"], config["storage"]) == ([f"{service.stream}.*"], "file")
    assert config["allow_atomic"]
    assert config["allow_direct"]


async def test_what_get_says_can_be_put_back_without_its_status(service: Live) -> None:
    watcher = await service.add(start={"at": {"timestamp": "2026-01-01T00:00:00Z"}}, paused=True)
    watcher.pop("status")
    await service.call("PUT", "/watchers/orders", 200, json=watcher)
    again = await service.get("/watchers/orders")
    again.pop("status")
    assert again == watcher


async def test_the_four_operations_arrive_on_their_subjects_in_order(service: Live) -> None:
    await service.add()
    service.insert(1, 2)
    service.orders.update_one({"_id": 1}, {"$set": {"a": 1}})
    service.orders.replace_one({"_id": 2}, {"b": 2})
    service.orders.delete_one({"_id": 1})
    found = await service.seen("1", "2", "update 1", "replace 2", "delete 1")
    assert [message.subject.rpartition(".")[2] for message in found] == [
        "insert", "insert", "update", "replace", "delete",
    ]  # fmt: skip
    assert all(message.id == message.token for message in found)


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
    await service.add("first")
    other = {
        "name": "second",
        "source": {"database": f"other_{service.unique}", "collection": service.collection},
        "sink": {"stream": f"{service.stream}_2"},
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


async def test_list_knows_states_and_get_of_an_unknown_one_is_404(service: Live) -> None:
    assert await service.get("/watchers") == []
    await service.add("b")
    await service.add(
        "a", source={"collection": f"a_{service.unique}"}, checkpoint={"collection": f"a_{service.unique}"}, paused=True
    )
    assert [each["name"] for each in await service.get("/watchers")] == ["a", "b"]
    assert [each["name"] for each in await service.get("/watchers?state=PAUSED")] == ["a"]
    assert [each["name"] for each in await service.get("/watchers?state=running")] == ["b"]
    assert await service.get("/watchers?state=FAILED") == []
    await service.refused(422, "GET", "/watchers?state=tired")
    await service.refused(422, "GET", "/watchers?sate=PAUSED")
    for path in ("", "/status", "/health", "/lag", "/token"):
        await service.call("GET", f"/watchers/nobody{path}", 404)
    for method, path in (
        ("DELETE", ""), ("PUT", "/pause"), ("PUT", "/resume"), ("POST", "/restart"), ("DELETE", "/token"),
    ):  # fmt: skip
        assert "nobody" in await service.refused(404, method, f"/watchers/nobody{path}")
    await service.refused(404, "PUT", "/watchers/nobody/token", json={"at": "latest"})
    await service.refused(405, "PATCH", "/watchers/b")
    await service.refused(404, "GET", "/watcher")


async def test_put_creates_with_201_and_replaces_with_200(service: Live) -> None:
    definition = service.definition()
    definition.pop("name")
    answer = await service.call("PUT", "/watchers/orders", 201, json=definition)
    assert answer.headers["Location"] == "/watchers/orders"
    await service.reaches("RUNNING")
    assert "Location" not in (await service.call("PUT", "/watchers/orders", 200, json=definition)).headers
    await service.refused(422, "PUT", "/watchers/orders", json={**definition, "name": "another"})
    assert len(service.stored()) == 1


async def test_replacing_operations_and_pipeline_goes_on_without_loss_or_doubling(service: Live) -> None:
    await service.add()
    service.insert(1, 2)
    await service.seen("1", "2")
    await service.put(sink={"operations": ["insert", "delete"]})
    service.orders.update_one({"_id": 1}, {"$set": {"a": 1}})
    service.insert(3)
    await service.seen("1", "2", "3")
    await service.put(
        sink={"operations": ["insert", "delete"]}, source={"pipeline": [{"$match": {"fullDocument._id": {"$gt": 100}}}]}
    )
    service.insert(4, 101)
    await service.seen("1", "2", "3", "101")
    await service.put()
    service.insert(5)
    service.orders.update_one({"_id": 1}, {"$set": {"a": 2}})
    await service.seen("1", "2", "3", "101", "5", "update 1")


async def test_replacing_under_load_loses_and_doubles_nothing(service: Live) -> None:
    await service.add()
    keys = list(range(600))
    for round_ in range(3):
        service.orders.insert_many([{"_id": key} for key in keys[200 * round_ : 200 * round_ + 200]])
        await service.put(source={"pipeline": [{"$match": {"operationType": {"$ne": f"nothing {round_}"}}}]})
    await service.seen(*map(str, keys))


async def test_replacing_the_subject_goes_on_under_the_new_one_each_change_once(service: Live) -> None:
    await service.streams.create(service.stream, subjects=[f"{service.stream}.>"])
    await service.add()
    service.insert(1, 2)
    await service.seen("1", "2")
    await service.put(sink={"subject": "{stream}.{database}.{operation}"})
    service.insert(3)
    found = await service.seen("1", "2", "3")
    assert found[2].subject == f"{service.stream}.{service.database}.insert"
    await service.put()
    service.insert(4)
    assert (await service.seen("1", "2", "3", "4"))[3].subject == f"{service.stream}.insert"


async def test_replacing_the_stream_goes_on_there_from_where_it_was(service: Live) -> None:
    await service.add()
    service.insert(1)
    await service.seen("1")
    await service.pause()
    service.insert(2)
    await service.put(sink={"stream": f"{service.stream}_2"})
    service.insert(3)
    await service.seen("2", "3", stream=f"{service.stream}_2")
    await service.seen("1")


async def test_a_failed_watcher_whose_checkpoint_is_behind_doubles_nothing_under_a_new_subject(service: Live) -> None:
    await service.streams.create(service.stream, subjects=[f"{service.stream}.>"])
    await service.add(sink={"oversize": "fail"})
    # The checkpoint is written at most twice a second: what follows the first one is not in it when the watcher fails.
    service.insert(0)
    await until(lambda: any("sequence" in one and one["sequence"] for one in service.checkpoint()))
    for key in range(1, 11):
        service.insert(key)
    await service.seen(*map(str, range(11)))
    service.orders.insert_one({"_id": 11, "much": "x" * 1_100_000})
    await service.reaches("FAILED")
    await service.put(sink={"subject": "{stream}.{database}.{operation}"})
    await service.seen(*map(str, range(12)))


async def test_replacing_the_checkpoint_place_takes_the_position_along(service: Live) -> None:
    await service.add(start={"at": "latest"})
    await service.pause()
    await service.put(checkpoint={"collection": f"moved_{service.unique}"}, paused=True)
    await service.restart()  # nothing is on the stream and nothing in memory: the stored position alone can tell
    service.insert(1)
    await service.resume()
    service.insert(2)
    await service.seen("1", "2")


async def test_put_with_another_collection_is_409_and_changes_nothing(service: Live) -> None:
    await service.add()
    before = await service.facts()
    other = service.definition(source={"collection": f"other_{service.unique}"})
    assert "its collection" in await service.refused(409, "PUT", "/watchers/orders", json=other)
    assert (await service.facts())["watchers"] == before["watchers"]
    service.insert(1)
    await service.seen("1")


@pytest.mark.parametrize("method", ["POST", "PUT"])
async def test_a_dry_run_of_adding_answers_as_the_add_would_and_changes_nothing(service: Live, method: str) -> None:
    before = await service.facts()
    path = "/watchers?dry_run=true" if method == "POST" else "/watchers/orders?dry_run=true"
    definition = service.definition(
        source={"pre_and_post_images": True}, checkpoint={"capped": True, "size_in_bytes": 4096}
    )
    would = (await service.call(method, path, 200, json=definition)).json()
    assert would["sink"]["stream"] == service.stream
    refused = service.definition(source={"pipeline": [{"$nonsense": 1}]})
    await service.refused(422, method, path, json=refused)
    assert await service.facts() == before
    assert await service.get("/watchers") == []


async def test_a_dry_run_of_replacing_changes_nothing_and_the_watcher_runs_on(service: Live) -> None:
    await service.add()
    before = await service.facts()
    path = "/watchers/orders?dry_run=true"
    changed = service.definition(sink={"operations": ["delete"], "stream": f"{service.stream}_2"})
    would = (await service.call("PUT", path, 200, json=changed)).json()
    assert would["sink"]["operations"] == ["delete"]
    await service.refused(422, "PUT", path, json=service.definition(source={"pipeline": [{"$project": {"_id": 0}}]}))
    service.insert(1)
    await service.seen("1")
    after = await service.facts()
    assert (after["watchers"], after["streams"]) == (before["watchers"], before["streams"])
    assert await service.get("/watchers/orders") != would


async def test_removing_keeps_stream_and_checkpoint_unless_told_otherwise(service: Live) -> None:
    await service.add()
    service.insert(1)
    await service.seen("1")
    assert (await service.call("DELETE", "/watchers/orders", 204)).content == b""
    assert service.stored() == []
    assert len(service.checkpoint()) == 1
    await service.call("DELETE", "/watchers/orders", 404)
    service.insert(2)  # nobody watches; the checkpoint that was kept makes up for it
    await service.add()
    await service.seen("1", "2")
    await service.refused(422, "DELETE", "/watchers/orders?checkpoint=maybe")
    await service.call("DELETE", "/watchers/orders?checkpoint=keep", 204)
    await service.add()
    await service.call("DELETE", "/watchers/orders?checkpoint=delete", 204)
    assert service.checkpoint() == []
    await service.seen("1", "2")


async def test_pause_resume_and_restart_answer_202_and_lose_nothing(service: Live) -> None:
    await service.add()
    service.insert(1)
    await service.seen("1")
    assert (await service.call("PUT", "/watchers/orders/pause", 202)).json()["paused"]
    await service.call("PUT", "/watchers/orders/pause", 202)
    assert "resume" in await service.refused(409, "POST", "/watchers/orders/restart")
    service.insert(2)
    service.orders.update_one({"_id": 1}, {"$set": {"a": 1}})
    service.orders.delete_one({"_id": 1})
    assert not (await service.call("PUT", "/watchers/orders/resume", 202)).json()["paused"]
    await service.call("PUT", "/watchers/orders/resume", 202)
    expected = ["1", "2", "update 1", "delete 1"]
    await service.seen(*expected)
    await service.call("POST", "/watchers/orders/restart", 202)
    await service.reaches("RUNNING")
    service.insert(3)
    await service.seen(*expected, "3")


async def test_a_paused_watcher_stays_paused_over_a_restart_of_the_service(service: Live) -> None:
    await service.add()
    await service.pause()
    await service.restart()
    await service.reaches("PAUSED")
    service.insert(1)
    await service.resume()
    await service.seen("1")


async def test_a_database_that_does_not_exist_works_and_is_created_by_the_first_write(service: Live) -> None:
    await service.add()
    assert service.database not in service.mongo.list_database_names()
    service.insert(1)
    await service.seen("1")


async def test_odd_names_of_collection_and_watcher_work(service: Live) -> None:
    collection = f"bestellungen.größe {service.unique}"
    answer = await service.call(
        "POST", "/watchers", 201, json=service.definition("größe_1", source={"collection": collection})
    )
    await service.reaches("RUNNING", "größe_1")
    stream = answer.json()["sink"]["stream"]
    service.mongo[service.database][collection].insert_one({"_id": 1})
    await service.seen("1", stream=stream)
    assert (await service.call("GET", answer.headers["Location"], 200)).json()["name"] == "größe_1"
    await service.call("DELETE", answer.headers["Location"], 204)
