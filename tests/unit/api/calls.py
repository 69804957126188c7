"""The HTTP interface in this process, and a client of it that looks at every answer whether it is as documented."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from fastapi import FastAPI
from pydantic import SecretStr

from app.api import create_api
from app.config.settings import Settings
from app.control.registry import Registry
from tests.unit.api.documented import assert_documented
from tests.unit.api.fake_registry import FakeRegistry

BASE = "http://127.0.0.1:8080"
SECRET = "hunter2hunter2"
ORDERS: dict[str, Any] = {"name": "orders", "source": {"database": "shop", "collection": "orders"}}
JSON = {"Content-Type": "application/json"}

READ, WRITE = "r" * 20, "w" * 20
TOKENS = {"api_tokens": SecretStr(f"viewer:read:{READ},deploy:write:{WRITE}")}
CLOSED = TOKENS | {"reads_need_token": True}
"""Settings with two named tokens, and with reads closed as well."""


async def render_metrics() -> tuple[bytes, str]:
    return b"up 1\n", "text/plain; version=1.0.0; charset=utf-8"


def application(registry: FakeRegistry | Registry, **settings: Any) -> FastAPI:
    return create_api(
        registry=registry,  # type: ignore[arg-type]
        settings=Settings(**settings),
        render_metrics=render_metrics,
        lifespan=None,
    )


@asynccontextmanager
async def client_of(app: FastAPI, base: str = BASE) -> AsyncIterator[httpx.AsyncClient]:
    async def look(answer: httpx.Response) -> None:
        await answer.aread()
        assert_documented(answer)

    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url=base, event_hooks={"response": [look]}) as client:
        yield client


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    """The body of a problem, checked for what every one has."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert {"type", "title", "status", "detail"} <= body.keys()
    assert body["status"] == status
    assert body["detail"]
    assert "Traceback" not in answer.text
    assert SECRET not in answer.text
    return body


def fields(answer: httpx.Response) -> list[str]:
    return [each["field"] for each in problem(answer, 422)["errors"]]
