"""The calls about the instances that share the watchers."""

from __future__ import annotations

import httpx
import pytest
from structlog.testing import capture_logs

from app.domain.errors import Conflict
from app.domain.instances import InstanceView, Member
from tests.unit.api.calls import READ, TOKENS, application, bearer, client_of, problem
from tests.unit.api.fake_registry import FakeRegistry

SINCE = 1_700_000_000.0


@pytest.fixture(autouse=True)
def instances(registry: FakeRegistry) -> dict[str, InstanceView]:
    mine = Member("a", "s1", 2.0, rate=12.34567, version="0.1.0", since=SINCE, seen=SINCE + 9)
    late = Member("b", "s2", unfit="nats://u:hunter2hunter2@h refuses", since=SINCE, seen=SINCE)
    gone = Member("c", "s3", since=SINCE, seen=SINCE, age=61.4)
    registry.members = {
        "a": InstanceView(mine, 3, itself=True),
        "b": InstanceView(late, 0, itself=False, as_of=SINCE + 1),
        "c": InstanceView(gone, 0, itself=False),
    }
    return registry.members


async def test_instances_are_listed_with_what_they_do(client: httpx.AsyncClient) -> None:
    first, late, gone = (await client.get("/instances")).json()
    assert first == {
        "name": "a", "state": "active", "reason": None, "self": True, "since": "2023-11-14T22:13:20.000Z",
        "seen": "2023-11-14T22:13:29.000Z", "weight": 2.0, "watchers": 3, "events_per_second": 12.346,
        "version": "0.1.0", "as_of": None,
    }  # fmt: skip
    assert (late["state"], late["reason"], late["as_of"]) == (
        "unfit", "nats://***@h refuses", "2023-11-14T22:13:21.000Z",
    )  # fmt: skip
    assert (gone["state"], gone["reason"]) == ("gone", "not heard of for 61 seconds")


async def test_an_instance_is_drained_and_takes_watchers_again(client: httpx.AsyncClient) -> None:
    answer = await client.put("/instances/a/drain")
    assert (answer.status_code, answer.json()["state"]) == (202, "draining")
    assert (await client.get("/instances")).json()[0]["state"] == "draining"
    answer = await client.delete("/instances/a/drain")
    assert (answer.status_code, answer.json()["state"]) == (202, "active")


async def test_what_cannot_be_drained_is_refused_with_the_reason(
    client: httpx.AsyncClient, registry: FakeRegistry
) -> None:
    assert "no instance z" in problem(await client.put("/instances/z/drain"), 404)["detail"]
    assert "no instance z" in problem(await client.delete("/instances/z/drain"), 404)["detail"]
    problem(await client.put("/instances/a/drain?force=perhaps"), 422)
    problem(await client.put("/instances/a/drain?fource=true"), 422)
    registry.failure = Conflict("no other instance")
    assert "no other instance" in problem(await client.put("/instances/a/drain"), 409)["detail"]
    assert (await client.put("/instances/a/drain?force=true")).status_code == 202


async def test_draining_needs_the_right_to_change_and_leaves_a_line(registry: FakeRegistry) -> None:
    async with client_of(application(registry, **TOKENS)) as client:
        with capture_logs() as logs:
            problem(await client.put("/instances/a/drain", headers=bearer(READ)), 403)
            problem(await client.delete("/instances/a/drain"), 401)
    assert [one["path"] for one in logs if one["event"] == "audit"] == ["/instances/a/drain"] * 2
    assert registry.members["a"].member.drained is False
