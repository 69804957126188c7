"""What the HTTP interface says of itself: complete, resolvable, and the same as openapi.json."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.api import openapi_document
from app.cli import openapi as openapi_command
from tests.unit.api.calls import application, client_of
from tests.unit.api.fake_registry import FakeRegistry


def calls(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, call in methods.items():
            yield path, method, call


def test_openapi_json_is_what_the_application_says(capsys: pytest.CaptureFixture[str]) -> None:
    assert openapi_command.openapi() == 0
    printed = capsys.readouterr().out
    assert printed == (Path(__file__).parents[3] / "openapi.json").read_text(), "run: make openapi"


async def test_openapi_document_is_served() -> None:
    async with client_of(application(FakeRegistry())) as client:
        assert (await client.get("/openapi.json")).json() == openapi_document()


def test_every_call_is_documented() -> None:
    seen = set()
    for path, method, call in calls(openapi_document()):
        assert call["description"], path
        assert call["tags"], path
        assert call["operationId"] not in seen
        seen.add(call["operationId"])
        if method != "get":
            assert call["security"] == [{"HTTPBearer": []}], path
            assert {"401", "403"} <= call["responses"].keys(), path
        if "{name}" in path and method != "put":
            assert "404" in call["responses"], path
        for status, response in call["responses"].items():
            if status >= "400" and not (status == "503" and path.endswith(("/health", "/healthz", "/readyz"))):
                assert list(response["content"]) == ["application/problem+json"], (path, status)


def test_references_of_the_document_resolve() -> None:
    document = openapi_document()
    schemas = document["components"]["schemas"]
    for reference in set(json.dumps(document).split('"$ref": "')[1:]):
        assert reference.partition('"')[0].removeprefix("#/components/schemas/") in schemas
    assert "HTTPValidationError" not in schemas


async def test_the_document_is_made_once_and_in_a_thread(registry: FakeRegistry) -> None:
    app, makers = application(registry), list[threading.Thread]()
    make = app.openapi

    def noted() -> dict[str, Any]:
        makers.append(threading.current_thread())
        return make()

    app.openapi = noted  # type: ignore[method-assign]
    async with client_of(app) as client:
        answers = await asyncio.gather(*(client.get("/openapi.json") for _ in range(5)))
    assert {answer.status_code for answer in answers} == {200}
    assert len(makers) == 1
    assert makers[0] is not threading.main_thread()
