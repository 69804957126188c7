"""The calls that add, show, replace, stop and remove watchers, judged by what the servers hold afterwards."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.live import Live


@pytest_asyncio.fixture
async def service(mongo_uri: str, nats_url: str, unique: str) -> AsyncIterator[Live]:
    async with Live(mongo_uri, nats_url, unique) as live:
        yield live


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
            "include": [],
            "exclude": [],
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
        "checkpoint": None,
        "start": {"at": "latest"},
        "on_history_lost": "fail",
        "snapshot": "none",
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
