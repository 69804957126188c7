"""Traces of the service on real servers: what the collector gets, what the messages say, and what stays as it was."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from opentelemetry import trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from app.config.settings import load
from app.devservers.process import free_port
from app.doctor.examination import examine
from app.tracing.sink import HEADER
from tests.collector import Collector
from tests.conftest import MakeNats
from tests.live import Live, until
from tests.pages import Shell, blocks


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    monkeypatch.setattr("app.tracing.exporter.CLOSE_SECONDS", 30.0)  # the last spans are waited for on any machine


@pytest_asyncio.fixture
async def collector() -> AsyncIterator[Collector]:
    with Collector() as collector:
        yield collector


def tracing(collector: Collector, what: str = "messages", **more: str) -> dict[str, Any]:
    return {"CHANGEWIRE_TRACING": what, "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint, **more}


@pytest.mark.parametrize("codec", ["auto", "python"])
async def test_each_message_names_the_publish_that_brought_it(
    mongo_uri: str, nats_url: str, unique: str, collector: Collector, codec: str
) -> None:
    environ = tracing(collector, CHANGEWIRE_CODEC=codec, OTEL_SERVICE_NAME="cdc", CHANGEWIRE_INSTANCE="one")
    async with Live(mongo_uri, nats_url, unique, **environ) as live:
        await live.add()
        live.orders.insert_many([{"_id": number} for number in range(300)])
        live.orders.update_one({"_id": 7}, {"$set": {"n": 1}})
        await live.seen(*map(str, range(300)), "update 7")

        async def checkpointed() -> bool:
            return any(span.parent for span in collector.named("checkpoint"))

        await until(checkpointed)
        messages = await live.messages(live.stream)
    assert len(messages) == 301
    assert [message.id for message in messages] == [message.token for message in messages]
    (opening,) = collector.named("open")
    assert opening.failed is None
    assert opening.attributes["changewire.watcher"] == "orders"
    assert opening.resource["service.name"] == "cdc"
    assert opening.resource["service.instance.id"] == "one"
    publishes = {span.named_as: span for span in collector.named("publish")}
    named = [message.headers[HEADER][:-2] for message in messages]
    assert set(named) == set(publishes)
    context = TraceContextTextMapPropagator().extract(messages[0].headers)  # as a consumer does
    followed = trace.get_current_span(context).get_span_context()
    assert (f"{followed.trace_id:032x}", f"{followed.span_id:016x}") in {(s.trace, s.id) for s in publishes.values()}
    for name, span in publishes.items():
        assert span.attributes["messaging.batch.message_count"] == named.count(name)
        assert span.attributes["messaging.destination.name"] == live.stream
        (read,) = [each for each in collector.named("read") if each.id == span.parent]
        assert read.trace == span.trace
        assert read.attributes["db.collection.name"] == live.collection
    assert sum(span.attributes["changewire.events"] for span in collector.named("read")) == 301
    before = {span.parent for span in collector.named("checkpoint") if span.parent}
    assert before <= {span.id for span in publishes.values()}


async def test_spans_alone_leave_the_messages_as_they_are(
    mongo_uri: str, nats_url: str, unique: str, collector: Collector
) -> None:
    async with Live(mongo_uri, nats_url, unique, **tracing(collector, "spans")) as live:
        await live.add()
        live.insert(1, 2)
        await live.seen("1", "2")
        messages = await live.messages(live.stream)
    assert all(set(message.headers).isdisjoint({HEADER, "tracestate"}) for message in messages)
    assert collector.named("publish")


async def test_bodies_and_ids_are_the_same_with_traces_and_without(
    mongo_uri: str, nats_url: str, unique: str, collector: Collector
) -> None:
    async with Live(mongo_uri, nats_url, unique) as live:
        await live.add()
        await live.add("other", sink={"stream": f"OTHER_{live.stream}"})
        await live.pause("other")
        live.orders.insert_many([{"_id": number, "text": "x" * number} for number in range(50)])
        await live.seen(*map(str, range(50)))
        await live.restart(**tracing(collector))
        await live.resume("other")

        async def all_there() -> bool:
            return len(await live.messages(f"OTHER_{live.stream}")) == 50

        await until(all_there)
        plain, traced = await live.messages(live.stream), await live.messages(f"OTHER_{live.stream}")
    assert [(message.id, message.body) for message in plain] == [(message.id, message.body) for message in traced]
    assert {HEADER in message.headers for message in plain} == {False}
    assert {HEADER in message.headers for message in traced} == {True}


async def test_the_header_counts_in_the_sizes_that_are_known_before_they_are_sent(
    mongo_uri: str, make_nats: MakeNats, unique: str, collector: Collector
) -> None:
    """Documents of every size around `max_payload`: each is published, as itself or as a pointer, and nothing ever
    exceeds what the server takes, which would cut the connection."""
    nats = await make_nats(max_payload=16_384)
    async with Live(mongo_uri, nats.url, unique, **tracing(collector)) as live:
        await live.add(sink={"oversize": "claim_check"})
        sizes = range(15_000, 16_400, 7)
        live.orders.insert_many([{"_id": size, "text": "x" * size} for size in sizes])
        await live.seen(*map(str, sizes))
        messages = await live.messages(live.stream)
        assert '"event": "nats_disconnected"' not in live.log.getvalue()
    pointers = [message for message in messages if "Changewire-Object" in message.headers]
    assert 0 < len(pointers) < len(messages)
    assert all(HEADER in message.headers for message in messages)
    whole = max(message.body["fullDocument"]["_id"] for message in messages if message not in pointers)
    assert whole < min(message.body["documentKey"]["_id"] for message in pointers)


async def test_an_opening_that_fails_is_a_span_with_its_reason(
    mongo_uri: str, make_nats: MakeNats, unique: str, collector: Collector
) -> None:
    nats = await make_nats()
    async with Live(mongo_uri, nats.url, unique, **tracing(collector, "spans")) as live:
        await live.add()
        live.insert(1)
        await live.seen("1")
        config = await live.streams.config(live.stream)
        await live.streams.api(f"STREAM.DELETE.{live.stream}")
        assert config is not None
        await live.streams.create(live.stream, subjects=config["subjects"])
        live.insert(2)
        await live.reaches("FAILED")

        async def told() -> bool:
            return any(span.failed for span in collector.named("publish"))

        await until(told)
    assert all(span.attributes["error.type"] for span in collector.spans if span.failed)


async def test_a_collector_that_is_absent_costs_no_message(
    mongo_uri: str, nats_url: str, unique: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.tracing.exporter.CLOSE_SECONDS", 0.5)
    endpoint = f"http://127.0.0.1:{free_port()}"
    environ: dict[str, Any] = {"CHANGEWIRE_TRACING": "messages", "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}
    async with Live(mongo_uri, nats_url, unique, **environ) as live:
        await live.add()
        live.insert(*range(100))
        await live.seen(*map(str, range(100)))
        assert json.loads((await live.call("GET", "/healthz", 200)).text)["status"] == "UP"


async def test_the_doctor_says_whether_the_collector_takes_spans(
    mongo_uri: str, nats_url: str, unique: str, collector: Collector
) -> None:
    settings = {"MONGO_URI": mongo_uri, "NATS_URL": nats_url, "CHANGEWIRE_STATE_DB": f"state_{unique}"}
    found = [each async for each in examine(load(environ={**settings, **tracing(collector)}))]
    assert [each.found for each in found if each.about == "tracing"] == [f"{collector.endpoint}/v1/traces takes spans"]
    assert [each async for each in examine(load(environ=settings)) if each.about == "tracing"] == []


async def test_the_pages_command_says_that_the_collector_takes_spans(
    mongo_uri: str, nats_url: str, unique: str, collector: Collector, tmp_path: Path
) -> None:
    environ = {"MONGO_URI": mongo_uri, "NATS_URL": nats_url, "CHANGEWIRE_STATE_DB": f"state_{unique}"}
    shell = Shell(tmp_path, {"http://127.0.0.1:4318": collector.endpoint}, environ)
    (block,) = blocks("docs/tracing.md", language="sh")
    assert "takes spans" in await shell(block)
