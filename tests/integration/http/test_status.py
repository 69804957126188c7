"""What the service says of itself: status, health, lag, probes, metrics, and its own description."""

import asyncio
import re
from collections.abc import AsyncIterator

import pytest_asyncio
from prometheus_client.parser import text_string_to_metric_families

from app.devservers.servers import MongoServer, NatsServer
from tests.live import Live, until
from tests.unit.metrics.test_observer import CONTRACT

OF_TROUBLE = {"nats_messages_failed_total", "changewire_watcher_restarts_total"}
ON_REQUEST = {"changewire_snapshot_documents_total", "changewire_snapshot_running"}
"""Have no series while there was no trouble."""

Series = dict[str, list[tuple[dict[str, str], float]]]


@pytest_asyncio.fixture
async def service(mongo_uri: str, nats_url: str, unique: str) -> AsyncIterator[Live]:
    async with Live(mongo_uri, nats_url, unique) as live:
        yield live


async def metrics(service: Live) -> Series:
    """Every series by the name of its metric, a histogram's by its own."""
    answer = await service.call("GET", "/metrics", 200)
    assert answer.headers["Content-Type"].startswith("text/plain")
    found: Series = {}
    for family in text_string_to_metric_families(answer.text):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        series = found.setdefault(name, [])
        for sample in family.samples:
            if family.type != "histogram" or sample.name.endswith("_count"):
                series.append((sample.labels, sample.value))
    return found


async def test_status_tells_state_events_and_how_it_publishes(service: Live) -> None:
    await service.add(sink={"operations": ["insert"]})
    service.insert(1, 2)
    service.orders.delete_one({"_id": 1})
    await service.seen("1", "2")
    await until(lambda: service.checkpoint()[0].get("sequence") == 2)
    status = await service.get("/watchers/orders/status")
    assert set(status) == {
        "state", "since", "reason", "last_error", "restarts", "events", "rates", "publish_mode", "fence",
        "dead_letters", "notes", "reads", "reads_why", "snapshot", "instance", "as_of",
    }  # fmt: skip
    assert status["instance"]
    assert status["as_of"] is None
    assert (status["state"], status["reason"], status["last_error"], status["restarts"]) == ("RUNNING", None, None, 0)
    assert status["reads"] == "own"
    assert "the only watcher of its database" in status["reads_why"]
    assert (status["publish_mode"], status["fence"], status["notes"]) == ("fast_ingest", "stream", [])
    assert status["events"]["published"] == 2
    assert status["rates"]["last_10s"] > 0
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", status["since"])


async def test_health_is_200_where_a_watcher_does_as_told(service: Live) -> None:
    await service.add()
    assert await service.get("/watchers/orders/health") == {"status": "UP", "state": "RUNNING"}
    await service.pause()
    assert await service.get("/watchers/orders/health") == {"status": "UP", "state": "PAUSED"}


async def test_lag_is_small_where_the_watcher_keeps_up_and_all_are_listed(service: Live) -> None:
    assert await service.get("/lag") == {}
    await service.add()
    service.insert(1)
    await service.seen("1")

    async def known() -> bool:
        return (await service.get("/watchers/orders/lag"))["checkpoint_age_seconds"] is not None

    await until(known)
    lag = await service.get("/watchers/orders/lag")
    assert set(lag) == {
        "seconds", "oplog_headroom_seconds", "oplog_headroom_why", "last_event_at", "checkpoint_age_seconds", "as_of",
    }  # fmt: skip
    assert 0 <= lag["seconds"] <= 11  # an idle position moves with the server's no-ops, every ten seconds
    assert lag["oplog_headroom_seconds"] >= 0
    assert lag["oplog_headroom_why"] is None
    assert lag["last_event_at"].endswith("Z")
    assert set(await service.get("/lag")) == {"orders"}


async def test_probes_have_the_connectors_shape_and_count_watchers_by_state(service: Live) -> None:
    up = {"status": "UP"}
    assert await service.get("/healthz") == {
        "status": "UP", "components": {"mongo": up, "nats": up, "watchers": up},
    }  # fmt: skip
    await service.add()
    paused = {"collection": f"paused_{service.unique}"}
    await service.add("paused", source=paused, checkpoint=paused, paused=True)
    assert (await service.get("/healthz"))["components"]["watchers"] == {**up, "running": 1, "paused": 1}
    assert await service.get("/livez") == up
    assert await service.get("/readyz") == up


async def test_whatever_answers_get_answers_head_without_a_body(service: Live) -> None:
    for path in ("/healthz", "/livez", "/readyz", "/metrics", "/watchers", "/openapi.json"):
        answer = await service.call("HEAD", path, 200)
        assert not answer.content
        # The list of watchers is written in pieces, so that nobody knows its length before.
        assert path == "/watchers" or int(answer.headers["Content-Length"]) > 0


async def test_a_failed_watcher_takes_healthz_down_with_its_name_and_reason_but_not_readyz(service: Live) -> None:
    await service.add(sink={"oversize": "fail"})
    service.orders.insert_one({"_id": 1, "much": "x" * 1_100_000})
    await service.reaches("FAILED")
    health = (await service.call("GET", "/healthz", 503)).json()
    assert (health["status"], health["components"]["mongo"]["status"]) == ("DOWN", "UP")
    watchers = health["components"]["watchers"]
    assert (watchers["status"], watchers["failed"]) == ("DOWN", 1)
    assert "orders" in watchers["reason"]
    await service.call("GET", "/readyz", 200)


async def test_servers_that_go_and_come_are_seen_by_healthz_and_nothing_is_lost(
    mongo_uri: str, own_nats: NatsServer, unique: str
) -> None:
    async with Live(mongo_uri, own_nats.url, unique) as service:
        await service.add()
        service.insert(1)
        await service.seen("1")
        own_nats.kill()

        async def down() -> bool:
            return (await service.call("GET", "/healthz")).status_code == 503

        await until(down)
        health = (await service.call("GET", "/healthz")).json()
        assert health["components"]["nats"]["status"] == "DOWN"
        assert health["components"]["nats"]["reason"]

        async def named() -> bool:  # first it may be the connection that was lost
            reason = (await service.call("GET", "/readyz", 503)).json()["reason"]
            return bool(reason.startswith("cannot connect to NATS"))

        await until(named)
        await service.call("GET", "/livez", 200)
        service.insert(2)
        await service.reaches("RETRYING")

        async def met() -> bool:
            return bool((await service.get("/watchers/orders/status"))["last_error"])

        await until(met)
        await own_nats.start()
        await service.reaches("RUNNING")
        await until(service.is_ready)
        await until(lambda: service.streams.client.is_connected)
        await service.seen("1", "2")
        series = await metrics(service)
        assert sum(value for labels, value in series["changewire_watcher_restarts_total"]) >= 1
        assert all(set(labels) == {"watcher", "reason"} for labels, _ in series["changewire_watcher_restarts_total"])


async def test_servers_that_are_absent_at_the_start_are_waited_for_and_the_watcher_catches_up(
    own_mongo: MongoServer, own_nats: NatsServer, unique: str
) -> None:
    async with Live(own_mongo.uri, own_nats.url, unique) as service:
        await service.add()
        service.insert(1)
        await service.seen("1")
        await service.stop()
        service.insert(2)
        await asyncio.gather(own_mongo.stop(), own_nats.stop())
        service.waits_until_ready = False
        await service.start()
        await service.call("GET", "/livez", 200)
        assert (await service.call("GET", "/readyz", 503)).json()["reason"]
        await service.refused(503, "POST", "/watchers", json=service.definition("other"))
        await own_mongo.start()
        await own_nats.start()
        await until(service.is_ready)
        await service.reaches("RUNNING")
        await until(lambda: service.streams.client.is_connected)
        await service.seen("1", "2")


async def test_metrics_have_every_name_and_label_of_the_contract_and_count_what_happened(service: Live) -> None:
    await service.add(sink={"operations": ["insert", "delete"]})
    service.insert(1, 2, 3)
    service.orders.update_one({"_id": 1}, {"$set": {"a": 1}})
    service.orders.delete_one({"_id": 1})
    await service.seen("1", "2", "3", "delete 1")
    await until(lambda: service.checkpoint()[0].get("sequence") == 4)

    async def stored() -> bool:  # it can be read before the service knows that it is written
        return bool((await metrics(service))["changewire_watcher_checkpoint_age_seconds"])

    await until(stored)
    service.mongo[service.database].create_collection("seen", viewOn="x", pipeline=[])
    await service.refused(422, "POST", "/watchers", json=service.definition("v", source={"collection": "seen"}))
    series = await metrics(service)
    assert set(CONTRACT) - set(series) == set()
    for name, labels in CONTRACT.items():
        assert series[name] or name in OF_TROUBLE | ON_REQUEST, name
        assert all(set(found) == labels for found, _ in series[name]), name

    def value(name: str, **labels: str) -> float:
        return next(value for found, value in series[name] if found == labels)

    inserts, deletes = f"{service.stream}.insert", f"{service.stream}.delete"
    assert value("changewire_events_total", watcher="orders", operation="insert") == 3
    assert value("changewire_events_total", watcher="orders", operation="delete") == 1
    assert value("changewire_events_skipped_total", watcher="orders", reason="operation") == 1
    assert value("nats_messages_published_total", subject=inserts) == 3
    assert value("nats_message_duration_seconds", subject=deletes) == 1
    name = "connector_change_event_processing_duration_seconds"
    assert value(name, collection=service.collection, subject=inserts) == 3
    assert value("changewire_event_delay_seconds", watcher="orders") == 4
    assert value("changewire_watcher_state", watcher="orders", state="RUNNING") == 1
    assert value("changewire_watcher_state", watcher="orders", state="FAILED") == 0
    assert value("mongodb_commands_failed_total", database=service.database, command="aggregate") >= 1
    assert value("mongodb_commands_succeeded_total", database=service.database, command="getMore") >= 1


async def test_a_removed_watchers_series_disappear_and_the_others_stay(service: Live) -> None:
    await service.add()
    other = {"collection": f"other_{service.unique}"}
    await service.add("other", source=other, checkpoint=other)
    service.insert(1)
    service.mongo[service.database][other["collection"]].insert_one({"_id": 1})
    await service.seen("1")
    await service.seen("1", stream=other["collection"].upper())
    await service.call("DELETE", "/watchers/orders", 204)
    text = (await service.call("GET", "/metrics", 200)).text
    assert 'watcher="orders"' not in text
    assert f'subject="{service.stream}.' not in text
    assert f'collection="{service.collection}"' not in text
    assert 'watcher="other"' in text
    assert f'subject="{other["collection"].upper()}.insert"' in text


async def test_openapi_describes_every_call_of_the_contract(service: Live) -> None:
    document = await service.get("/openapi.json")
    calls = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    watcher = "/watchers/{name}"
    assert calls == {
        ("POST", "/watchers"), ("GET", "/watchers"), ("GET", watcher), ("PUT", watcher), ("DELETE", watcher),
        ("PUT", f"{watcher}/pause"), ("PUT", f"{watcher}/resume"), ("POST", f"{watcher}/restart"),
        ("GET", f"{watcher}/status"), ("GET", f"{watcher}/health"), ("GET", f"{watcher}/lag"), ("GET", "/lag"),
        ("POST", f"{watcher}/snapshot"), ("DELETE", f"{watcher}/snapshot"),
        ("GET", f"{watcher}/token"), ("PUT", f"{watcher}/token"), ("DELETE", f"{watcher}/token"),
        ("GET", f"{watcher}/dead-letters"), ("GET", f"{watcher}/dead-letters/{{sequence}}"),
        ("DELETE", f"{watcher}/dead-letters/{{sequence}}"), ("POST", f"{watcher}/dead-letters/{{sequence}}/replay"),
        ("GET", f"{watcher}/history"), ("GET", f"{watcher}/stream"), ("GET", f"{watcher}/messages"),
        ("GET", "/healthz"), ("GET", "/livez"), ("GET", "/readyz"), ("GET", "/metrics"), ("GET", "/instances"),
        ("GET", "/suggestions"), ("PUT", "/instances/{instance}/drain"), ("DELETE", "/instances/{instance}/drain"),
    }  # fmt: skip
    assert (await service.call("GET", "/docs", 200)).headers["Content-Type"].startswith("text/html")
