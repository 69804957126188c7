"""Suggestions need what a change needs, with a token and without."""

from __future__ import annotations

import httpx
import pytest

from tests.unit.api.calls import CLOSED, READ, TOKENS, WRITE, application, bearer, client_of, problem
from tests.unit.api.fake_registry import FakeRegistry


async def test_suggestions_are_names_and_why_there_are_none(client: httpx.AsyncClient) -> None:
    nothing = {"more": False, "why": None}
    assert (await client.get("/suggestions?database=shop")).json() == {
        "databases": {"names": ["shop"], **nothing},
        "collections": {"names": ["orders"], **nothing},
        "streams": {"names": [], "more": False, "why": "NATS cannot be reached"},
    }
    assert (await client.get("/suggestions")).json()["collections"]["why"] == "no database is named"
    assert problem(await client.get("/suggestions?colour=red"), 422)["errors"][0]["field"] == "colour"


@pytest.mark.parametrize("settings", [TOKENS, CLOSED])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_where_changes_need_a_token_suggestions_need_one_that_may_change(
    registry: FakeRegistry, settings: dict[str, object], method: str
) -> None:
    async with client_of(application(registry, **settings)) as client:
        for headers, status in (({}, 401), (bearer("nobody's"), 401), (bearer(READ), 403), (bearer(WRITE), 200)):
            assert (await client.request(method, "/suggestions", headers=headers)).status_code == status


async def test_without_a_token_they_are_for_this_machine_alone(registry: FakeRegistry) -> None:
    async with client_of(application(registry)) as client:
        for headers in ({"Host": "evil.example"}, {"Origin": "https://evil.example"}):
            problem(await client.get("/suggestions", headers=headers), 403)
    async with client_of(application(registry, server_addr="0.0.0.0:8080")) as client:
        problem(await client.get("/suggestions"), 403)
