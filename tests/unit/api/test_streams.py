"""How messages, streams and histories are written: numbers as they were, large bodies cut, no secrets."""

from __future__ import annotations

import json
from typing import Any

import pytest

from app.api.event_stream import event
from app.api.schemas.base import to_json
from app.api.schemas.status import HappeningAnswer
from app.api.schemas.streams import SHOWN_BYTES, ConsumerAnswer, MessageEvent, StreamAnswer
from app.domain.errors import SourceUnavailable
from app.domain.lifecycle import State
from app.domain.streams import ConsumerFacts, Quiet, Skipped, StoredMessage, Trouble
from tests.fakes import FakeSource
from tests.unit.api.calls import application, client_of
from tests.unit.deployment import Fakes, until_state, watcher


def stored(body: bytes, **headers: str) -> StoredMessage:
    return StoredMessage(7, 1_700_000_000.25, "ORDERS.insert", headers, body)


def test_body_is_json_with_every_number_as_it_is_on_the_stream() -> None:
    sent = event(stored(b'{"n":9007199254740993,"x":1.0}', **{"Nats-Msg-Id": "82"})).decode()
    assert sent.startswith("event: message\nid: 7\ndata: {")
    assert '"body":{"n":9007199254740993,"x":1.0}' in sent
    data = json.loads(sent.split("data: ")[1])
    assert MessageEvent.model_validate(data).model_dump() == data
    assert (data["sequence"], data["time"], data["id"]) == (7, "2023-11-14T22:13:20.250Z", "82")
    assert (data["bytes"], data["note"]) == (30, None)


@pytest.mark.parametrize("body", [b"\xff\x00 no text", b"", b"NaN", b'{"a":1}{"b":2}', b"a\n\ndata: forged\n\nb"])
def test_what_is_not_json_is_text(body: bytes) -> None:
    sent = event(stored(body))
    assert sent.count(b"\n") == 4, "one event, whatever the body has"
    data = json.loads(sent.split(b"data: ", 1)[1])
    assert (data["body"], data["note"]) == (body.decode("utf-8", "replace"), "not JSON")


def test_line_breaks_between_tokens_do_not_end_theevent() -> None:
    sent = event(stored(b'{\r\n "a":\n\n1}'))
    assert sent.count(b"\n") == 4
    assert json.loads(sent.split(b"data: ")[1])["body"] == {"a": 1}


def test_large_body_is_cut_and_says_so() -> None:
    data = vars(MessageEvent.of(stored(b'"' + b"x" * SHOWN_BYTES + b'"')))
    assert len(data["body"]) == SHOWN_BYTES
    assert data["note"] == f"cut: the first {SHOWN_BYTES} of {SHOWN_BYTES + 2} bytes"


def test_other_events() -> None:
    assert event(Quiet()).startswith(b":")
    assert event(Skipped(3, 9)) == b'event: skipped\ndata: {"after":3,"before":9}\n\n'
    said = event(Trouble("cannot connect to nats://me:hunter2hunter2@host"))
    assert said.startswith(b"event: trouble\n")
    assert b"hunter2" not in said


def test_consumer_is_answered_as_documented() -> None:
    answer = ConsumerAnswer.of(ConsumerFacts("c", True, ("ORDERS.*",), 3, 2, 1, 0))
    assert ConsumerAnswer.model_validate_json(to_json(answer)) == answer


def failing(times: int) -> Any:
    original, left = FakeSource.prepare, times

    async def prepare(self: FakeSource, **options: Any) -> int:
        nonlocal left
        left -= 1
        if left >= 0:
            raise SourceUnavailable("connection refused")
        return await original(self, **options)

    return prepare


async def test_history_tells_states_and_errors_in_order_and_counts_those_that_repeat(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fakes = Fakes()
    registry = fakes.registry()
    registry.start()
    await registry.add(watcher("orders"), paused=True)
    monkeypatch.setattr(FakeSource, "prepare", failing(times=3))
    await registry.resume("orders")
    await until_state(registry, "orders", State.RUNNING)
    await registry.pause("orders")
    async with client_of(application(registry)) as client:
        answer = await client.get("/watchers/orders/history")
        assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
        found = [HappeningAnswer.model_validate(each) for each in answer.json()]
        assert [(each.state, each.count) for each in found][-3:] == [("RETRYING", 3), ("RUNNING", 1), ("PAUSED", 1)]
        assert [each.state for each in found][:2] == ["PAUSED", "STARTING"]
        assert "connection refused" in (found[-3].reason or "")
        assert (await client.get("/watchers/nobody/history")).status_code == 404

        StreamAnswer.model_validate((await client.get("/watchers/orders/stream")).json())
        assert (await client.get("/watchers/nobody/stream")).status_code == 404
        assert (await client.get("/watchers/nobody/messages")).status_code == 404
        assert (await client.get("/watchers/orders/messages?last=101")).status_code == 422
        head = await client.head("/watchers/orders/messages")
        assert (head.status_code, head.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
        fakes.nats.up = False
        for call in ("stream", "messages"):
            answer = await client.get(f"/watchers/orders/{call}")
            assert (answer.status_code, answer.json()["detail"]) == (503, "connection refused")
    await registry.close()


async def test_history_is_bounded_and_a_restart_does_not_wipe_it() -> None:
    fakes = Fakes()
    registry = fakes.registry()
    registry.start()
    await registry.add(watcher("orders"))
    for _ in range(30):
        await registry.restart("orders")
    await until_state(registry, "orders", State.RUNNING)
    history = await registry.history("orders")
    assert len(history) == 50
    assert [each.time for each in history] == sorted(each.time for each in history)
    await registry.remove("orders")
    await registry.add(watcher("orders"), paused=True)
    assert [each.state for each in await registry.history("orders")] == [State.PAUSED]
    await registry.close()
