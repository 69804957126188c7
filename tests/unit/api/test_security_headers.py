"""Every answer carries what keeps a browser from doing more with it than was meant."""

from __future__ import annotations

from tests.unit.api.calls import TOKENS, application, client_of
from tests.unit.api.fake_registry import FakeRegistry


async def test_answers_carry_what_keeps_a_browser_out(registry: FakeRegistry) -> None:
    registry.failure = RuntimeError("broken")
    async with client_of(application(registry, **TOKENS)) as client:
        for answer in (
            await client.get("/watchers"), await client.get("/metrics"), await client.get("/nowhere"),
            await client.post("/watchers"), await client.get("/watchers/orders"), await client.get("/openapi.json"),
        ):  # fmt: skip
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["referrer-policy"] == "no-referrer"
            assert answer.headers["cache-control"] == "no-store"
            assert answer.headers["content-security-policy"].startswith("default-src 'none'")
        page = await client.get("/docs")
        assert page.headers["x-content-type-options"] == "nosniff"
        assert page.headers["content-security-policy"].startswith("default-src 'self'")
