"""Named tokens and their roles: who may read and who may change, and what stays open to everybody."""

from __future__ import annotations

import httpx
import pytest
from pydantic import SecretStr

from tests.unit.api.calls import (
    CLOSED,
    ORDERS,
    READ,
    SECRET,
    TOKENS,
    WRITE,
    application,
    bearer,
    client_of,
    problem,
)
from tests.unit.api.fake_registry import FakeRegistry

READS = [
    "/watchers", "/watchers/orders", "/watchers/orders/status", "/watchers/orders/health", "/watchers/orders/lag",
    "/watchers/orders/token", "/lag", "/metrics", "/nowhere",
]  # fmt: skip
OPEN = ["/healthz", "/livez", "/readyz", "/docs", "/openapi.json", "/"]


async def test_roles(registry: FakeRegistry) -> None:
    async with client_of(application(registry, **TOKENS)) as client:
        refused = problem(await client.post("/watchers", json=ORDERS, headers=bearer(READ)), 403)
        assert "the token viewer has the role read" in refused["detail"]
        assert "www-authenticate" in (await client.post("/watchers", json=ORDERS)).headers
        problem(await client.post("/watchers", json=ORDERS, headers=bearer(WRITE[:-1])), 401)
        assert registry.views == {}
        assert (await client.post("/watchers", json=ORDERS, headers=bearer(WRITE))).status_code == 201
        for headers in ({}, bearer(READ), bearer(WRITE), bearer("nobody's")):  # reads are open
            assert (await client.get("/watchers/orders", headers=headers)).status_code == 200


async def test_the_one_token_goes_on_to_work_beside_the_named_ones(registry: FakeRegistry) -> None:
    async with client_of(application(registry, **TOKENS, api_token=SecretStr(SECRET))) as client:
        for token in (SECRET, WRITE):
            assert (await client.put("/watchers/orders", json=ORDERS, headers=bearer(token))).is_success


@pytest.mark.parametrize("path", READS)
async def test_closed_reads_need_a_token_of_any_role(registry: FakeRegistry, path: str) -> None:
    async with client_of(application(registry, **CLOSED)) as client:
        for method in ("GET", "HEAD"):
            for headers in ({}, bearer("nobody's"), {"Authorization": f"Basic {READ}"}):
                answer = await client.request(method, path, headers=headers)
                assert answer.status_code == 401
                assert answer.headers["www-authenticate"].startswith("Bearer")
        for token in (READ, WRITE):
            assert (await client.get(path, headers=bearer(token))).status_code in (200, 404)


@pytest.mark.parametrize("path", OPEN)
async def test_probes_and_what_is_the_same_everywhere_stay_open(registry: FakeRegistry, path: str) -> None:
    async with client_of(application(registry, **CLOSED)) as client:
        assert (await client.get(path)).status_code in (200, 307)


@pytest.mark.parametrize("path", ["//healthz", "/healthz/", "/healthz/../watchers", "/docs/../watchers", "/LIVEZ"])
async def test_closed_reads_have_no_way_round(registry: FakeRegistry, path: str) -> None:
    async with client_of(application(registry, **CLOSED)) as client:
        request = client.build_request("GET", "/")
        request.url = httpx.URL("http://127.0.0.1:8080").copy_with(raw_path=path.encode())
        assert (await client.send(request)).status_code == 401
