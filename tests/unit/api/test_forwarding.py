"""Each instance answers for every watcher: from the one that runs it, and in plain words where that one is silent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest
import pytest_asyncio
from structlog.testing import capture_logs

from app.api import create_api, forwarding, openapi_document
from app.api.forwarding import ANYWHERE, AT_THE_OWNER
from app.config.settings import Settings
from app.domain.errors import InstanceSilent
from app.domain.lifecycle import State
from app.domain.peer_messages import Answer, Ask
from app.domain.watcher import from_document
from tests.fakes.peers import FakeOwners, FakePeers, Network
from tests.unit.api.calls import JSON, ORDERS, TOKENS, WRITE, bearer, client_of, problem, render_metrics
from tests.unit.api.fake_registry import FakeRegistry


class One:
    """An instance: its registry, what it knows of the others, and a client of it."""

    def __init__(self, name: str, network: Network) -> None:
        self.name = name
        self.registry = FakeRegistry()
        self.owners = FakeOwners(name, network)
        self.peers = FakePeers(name, network)
        self.client: httpx.AsyncClient

    async def open(self, stack: AsyncExitStack) -> One:
        app = create_api(
            registry=self.registry,  # type: ignore[arg-type]
            settings=Settings(**TOKENS),  # type: ignore[arg-type]
            render_metrics=render_metrics,
            owners=self.owners,
            peers=self.peers,
        )
        self.client = await stack.enter_async_context(client_of(app))
        return self

    async def get(self, path: str) -> Any:
        answer = await self.client.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def change(self, method: str, path: str, **options: Any) -> httpx.Response:
        headers = bearer(WRITE) | options.pop("headers", {})
        return await self.client.request(method, path, headers=headers, **options)


@pytest.fixture
def network() -> Network:
    return Network()


@pytest_asyncio.fixture
async def instances(network: Network) -> AsyncIterator[tuple[One, One, One]]:
    """Three, of which `a` runs the watcher x, `b` orders and y, `c` nothing. Each knows every definition."""
    async with AsyncExitStack() as stack:
        a, b, c = [await One(name, network).open(stack) for name in "abc"]
        for name, owner in (("orders", "b"), ("x", "a"), ("y", "b"), ("z", "")):
            if owner:
                network.owners[name] = owner
            watcher = from_document({"name": name, "source": {"database": "shop", "collection": name}})
            for each in (a, b, c):
                mine = each.name == owner
                shown = each.registry.show(watcher, State.RUNNING if mine else State.STARTING, instance=owner or None)
                each.registry.views[name] = shown
                if not mine:
                    each.registry.elsewhere.add(name)
        yield a, b, c


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forwarding, "LOOK_SECONDS", 0.01)


GONE = InstanceSilent("the instance b does not listen on NATS")
UNKNOWN = InstanceSilent("the instance b did not answer within 2 s", begun=True)


# Who answers


async def test_every_call_about_one_watcher_says_who_has_to_answer() -> None:
    calls = {
        (method.upper(), path.removeprefix("/watchers/{name}").removeprefix("/"))
        for path, methods in openapi_document()["paths"].items()
        if path.startswith("/watchers/{name}")
        for method in methods
    }
    assert calls == AT_THE_OWNER | ANYWHERE, "add the new call to one of the two sets"
    assert not AT_THE_OWNER & ANYWHERE


@pytest.mark.parametrize("path", ["/watchers/orders", "/watchers/orders/status"])
async def test_a_read_is_answered_by_the_instance_that_runs_the_watcher(instances: tuple[One, ...], path: str) -> None:
    for one in instances:
        found = await one.get(path)
        status = found.get("status", found)
        assert (status["state"], status["instance"], status["as_of"]) == ("RUNNING", "b", None)


async def test_health_and_lag_and_history_are_those_of_the_instance_that_runs_it(
    instances: tuple[One, ...], network: Network
) -> None:
    a, _, c = instances
    for one in (a, c):
        assert await one.get("/watchers/orders/health") == {"status": "UP", "state": "RUNNING"}
        assert (await one.get("/watchers/orders/lag"))["seconds"] == 1.0
    assert [instance for instance, _ in network.asked] == ["b"] * 4


async def test_what_needs_no_owner_and_what_runs_here_asks_nobody(instances: tuple[One, ...], network: Network) -> None:
    a, *_ = instances
    await a.get("/watchers/orders/token")
    await a.get("/watchers/x")
    await a.get("/watchers/z")
    await a.get("/healthz")
    await a.get("/readyz")
    assert (await a.client.get("/watchers/absent")).status_code == 404
    assert network.asked == []


async def test_a_change_is_made_by_the_instance_that_runs_the_watcher(instances: tuple[One, ...]) -> None:
    a, b, _ = instances
    answer = await a.change("PUT", "/watchers/orders/pause", headers={"If-Match": '"7"'})
    assert answer.status_code == 202
    assert answer.headers["etag"] == (await b.client.get("/watchers/orders")).headers["etag"]
    assert b.registry.views["orders"].status.state is State.PAUSED
    assert a.registry.views["orders"].status.state is State.STARTING, "nothing was changed here"
    assert b.registry.expected == [frozenset({7})]
    moved = await a.change("PUT", "/watchers/orders/token", json={"at": "latest"})
    assert (moved.status_code, [name for name, _ in b.registry.moves]) == (200, ["orders"])
    replaced = await a.change("PUT", "/watchers/y?dry_run=true", json={"source": {"database": "shop"}})
    assert (replaced.status_code, replaced.json()["name"]) == (200, "y")
    assert (await a.change("DELETE", "/watchers/orders?checkpoint=delete")).status_code == 204
    assert b.registry.removed == [("orders", True)]


async def test_what_the_other_instance_refuses_is_refused_in_its_words(instances: tuple[One, ...]) -> None:
    a, b, _ = instances
    b.registry.views.clear()
    answer = await a.change("PUT", "/watchers/orders/pause")
    assert problem(answer, 404)["detail"] == "there is no watcher orders"
    wrong = await a.change("PUT", "/watchers/orders", json={"src": {}})
    assert "source" in {each["field"] for each in problem(wrong, 422)["errors"]}
    assert problem(await a.change("PUT", "/watchers/orders", content=b"{", headers=JSON), 400)


async def test_who_may_not_change_is_refused_before_anybody_is_asked(
    instances: tuple[One, ...], network: Network
) -> None:
    a, *_ = instances
    assert (await a.client.put("/watchers/orders/pause")).status_code == 401
    assert network.asked == []


async def test_no_secret_travels_and_the_caller_does(instances: tuple[One, ...], network: Network) -> None:
    a, *_ = instances
    await a.change("PUT", "/watchers/orders/pause", headers={"Cookie": "session=1"})
    ((_, ask),) = network.asked
    assert (ask.caller, ask.role, ask.remote, ask.through) == ("deploy", "write", "127.0.0.1", "a")
    assert WRITE.encode() not in ask.to_bytes()
    assert {name for name, _ in ask.headers} <= {"accept", "content-type", "if-match", "if-none-match"}


async def test_a_change_leaves_one_line_where_it_is_made(instances: tuple[One, ...]) -> None:
    a, *_ = instances
    with capture_logs() as logged:
        await a.change("PUT", "/watchers/orders/pause")
        await a.change("PUT", "/watchers/x/pause")
    lines = [entry for entry in logged if entry["event"] == "audit"]
    assert [(line["who"], line["watcher"], line["status"], line.get("through")) for line in lines] == [
        ("deploy", "orders", 202, "a"),
        ("deploy", "x", 202, None),
    ]
    assert [(line["action"], line["remote"]) for line in lines] == [("pause_watcher", "127.0.0.1")] * 2


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/watchers/x/messages"), ("GET", "/metrics"), ("POST", "/watchers"), ("GET", "/absent")],
)
async def test_another_instance_is_answered_only_what_needs_an_owner(
    instances: tuple[One, ...], network: Network, method: str, path: str
) -> None:
    assert (await network.handlers["a"](Ask(method, path, through="b", role="write"))).status == 404


# Ownership that moves


async def test_an_instance_that_has_lost_the_watcher_is_not_believed(
    instances: tuple[One, ...], network: Network
) -> None:
    a, _, c = instances
    a.owners.belief["orders"] = "c"
    looked = asyncio.create_task(a.get("/watchers/orders"))
    while not network.asked:
        await asyncio.sleep(0)
    a.owners.belief.clear()
    assert (await looked)["status"]["instance"] == "b"
    assert [instance for instance, _ in network.asked] == ["c", "b"]
    del c


async def test_a_watcher_that_comes_here_meanwhile_is_answered_here(
    instances: tuple[One, ...], network: Network
) -> None:
    a, *_ = instances
    a.owners.belief["orders"] = "c"
    changing = asyncio.create_task(a.change("PUT", "/watchers/orders", json=ORDERS))
    while not network.asked:
        await asyncio.sleep(0)
    a.owners.belief.clear()
    network.owners["orders"] = "a"
    assert (await changing).status_code == 200
    assert a.registry.views["orders"].stored.watcher.source.collection == "orders", "with its body"


async def test_a_watcher_that_moves_and_moves_is_told_so(instances: tuple[One, ...]) -> None:
    a, *_ = instances
    a.owners.belief["orders"] = "c"
    detail = problem(await a.change("PUT", "/watchers/orders/pause"), 503)["detail"]
    assert detail == "orders is moving between instances; nothing was changed, try again"
    status = (await a.get("/watchers/orders"))["status"]
    assert status["as_of"] is not None
    assert "moving between instances" in status["reason"]


# Silence


async def test_a_change_that_certainly_was_not_made_says_so(instances: tuple[One, ...], network: Network) -> None:
    a, *_ = instances
    network.silent["b"] = GONE
    with capture_logs() as logged:
        answer = await a.change("PUT", "/watchers/orders/pause")
    detail = problem(answer, 503)["detail"]
    assert answer.headers["retry-after"]
    assert "runs on the instance b" in detail
    assert "does not listen on NATS; nothing was changed, try again" in detail
    assert "within 6 seconds" in detail
    assert len(network.asked) == forwarding.LOOKS, "it may be back in a moment"
    (line,) = [entry for entry in logged if entry["event"] == "audit"]
    assert (line["status"], line["outcome"], line["instance"]) == (503, "failed", "b")


async def test_a_change_with_an_unknown_outcome_is_not_tried_again(
    instances: tuple[One, ...], network: Network
) -> None:
    a, *_ = instances
    network.silent["b"] = UNKNOWN
    detail = problem(await a.change("PUT", "/watchers/orders/pause"), 503)["detail"]
    assert "it is not known whether the change was made" in detail
    assert len(network.asked) == 1


async def test_a_frozen_instance_is_waited_for_until_it_counts_as_gone(
    instances: tuple[One, ...], network: Network
) -> None:
    a, *_ = instances
    network.frozen.add("b")
    changing = asyncio.create_task(a.change("PUT", "/watchers/orders/pause"))
    while not network.asked:
        await asyncio.sleep(0)
    del network.handlers["b"]
    assert "the instance b is gone" in problem(await changing, 503)["detail"]


async def test_a_watcher_that_was_taken_over_meanwhile_is_changed_there(
    instances: tuple[One, ...], network: Network
) -> None:
    a, _, c = instances
    network.silent["b"] = GONE
    changing = asyncio.create_task(a.change("PUT", "/watchers/orders/pause"))
    while not network.asked:
        await asyncio.sleep(0)
    network.owners["orders"] = "c"
    assert (await changing).status_code == 202
    assert c.registry.views["orders"].status.state is State.PAUSED


async def test_a_read_without_its_instance_says_as_of_when(instances: tuple[One, ...], network: Network) -> None:
    a, _, c = instances
    await a.get("/watchers/orders")
    network.silent["b"] = GONE
    for path in ("/watchers/orders", "/watchers/orders/status"):
        found = await a.get(path)
        status = found.get("status", found)
        assert (status["state"], status["instance"]) == ("RUNNING", "b"), "as it was last heard of"
        assert status["as_of"] is not None
        assert "the instance b does not listen on NATS" in status["notes"]
        found = await c.get(path)
        status = found.get("status", found)
        assert (status["state"], status["instance"]) == ("STARTING", "b"), "never heard of"
        assert status["as_of"] is not None
        assert status["reason"] == "its state is not known: the instance b does not listen on NATS"
    assert (await a.client.get("/watchers/orders")).headers["etag"]
    assert (await a.get("/watchers/orders/lag"))["as_of"] is not None
    health = await a.client.get("/watchers/orders/health")
    assert (health.status_code, health.json()["status"]) == (503, "DOWN")
    assert "b" in problem(await a.client.get("/watchers/orders/history"), 503)["detail"]


# Lists


def states(listed: Any) -> list[tuple[str, str, str | None]]:
    return [(each["name"], each["status"]["state"], each["status"]["instance"]) for each in listed]


ALL = [("orders", "RUNNING", "b"), ("x", "RUNNING", "a"), ("y", "RUNNING", "b"), ("z", "STARTING", None)]


async def test_every_instance_lists_all_watchers_as_they_are_where_they_run(instances: tuple[One, ...]) -> None:
    for one in instances:
        listed = await one.get("/watchers")
        assert states(listed) == ALL
        assert {each["status"]["as_of"] for each in listed} == {None}
        assert states(await one.get("/watchers?state=running")) == ALL[:3]
        assert states(await one.get("/watchers?state=starting")) == ALL[3:]
        lags = await one.get("/lag")
        assert list(lags) == ["orders", "x", "y", "z"]
        assert {lag["as_of"] for lag in lags.values()} == {None}
        assert (await one.client.head("/watchers")).status_code == 200


async def test_watchers_of_a_silent_instance_are_listed_as_they_were(
    instances: tuple[One, ...], network: Network
) -> None:
    a, _, c = instances
    await a.get("/watchers")
    network.silent["b"] = GONE
    listed = {each["name"]: each["status"] for each in await a.get("/watchers")}
    assert [(name, status["state"], status["as_of"] is None) for name, status in listed.items()] == [
        ("orders", "RUNNING", False), ("x", "RUNNING", True), ("y", "RUNNING", False), ("z", "STARTING", True),
    ]  # fmt: skip
    assert states(await c.get("/watchers")) == [
        ("orders", "STARTING", "b"), ("x", "RUNNING", "a"), ("y", "STARTING", "b"), ("z", "STARTING", None),
    ]  # fmt: skip
    assert [each["name"] for each in await a.get("/watchers?state=running")] == ["orders", "x", "y"]
    lags = await a.get("/lag")
    assert {name: lag["as_of"] is None for name, lag in lags.items()} == {
        "orders": False, "x": True, "y": False, "z": True,
    }  # fmt: skip


async def test_a_watcher_that_another_instance_has_just_added_is_listed(
    instances: tuple[One, ...], network: Network
) -> None:
    a, b, _ = instances
    network.owners["new"] = "b"
    new = from_document({"name": "new", "source": {"database": "shop", "collection": "new"}})
    b.registry.views["new"] = b.registry.show(new, State.RUNNING, instance="b")
    assert states(await a.get("/watchers")) == [("new", "RUNNING", "b"), *ALL]


async def test_a_watcher_that_another_instance_has_just_removed_is_not_listed(instances: tuple[One, ...]) -> None:
    a, b, _ = instances
    del b.registry.views["orders"]
    a.registry.outdated.add("orders")
    assert states(await a.get("/watchers")) == ALL[1:]


async def test_a_watcher_that_moves_while_all_are_listed_is_listed(instances: tuple[One, ...]) -> None:
    a, b, _ = instances
    b.registry.elsewhere.add("orders")
    listed = await a.get("/watchers")
    assert [each["name"] for each in listed] == ["orders", "x", "y", "z"]
    assert listed[0]["status"]["as_of"] is not None
    assert "moving between instances" in listed[0]["status"]["reason"]


async def test_an_instance_that_answers_something_else_counts_as_silent(
    instances: tuple[One, ...], network: Network
) -> None:
    a, *_ = instances

    async def other(_: Ask) -> Answer:
        return Answer(200, (), b'[{"name": "orders"}]')

    network.handlers["b"] = other
    assert [each["name"] for each in await a.get("/watchers")] == ["orders", "x", "y", "z"]
    assert sorted(await a.get("/lag")) == ["orders", "x", "y", "z"]


async def test_an_instance_that_is_alone_asks_nobody(network: Network) -> None:
    async with AsyncExitStack() as stack:
        a = await One("a", network).open(stack)
        assert await a.get("/watchers") == []
        assert await a.get("/lag") == {}
    assert network.asked == []
