"""Text that is none (half of a surrogate pair) is refused where it comes in, at every door, and named."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.__main__ import main
from app.api.middleware.limits import MAX_VALUES
from app.config.connector_yaml import ConnectorFileError, parse
from app.config.settings import SettingsError, load
from app.domain.watcher import problems
from tests.unit.api.calls import JSON, ORDERS, problem
from tests.unit.api.fake_registry import FakeRegistry
from tests.unit.deployment import watcher

HALF = "a\ud800b"
PLACES = [
    "name", "source.database", "source.collection", "source.full_document", "sink.stream", "sink.subject",
    "sink.operations.0", "sink.oversize", "checkpoint.database", "checkpoint.collection", "start.at",
    "start.at.token", "start.at.timestamp", "on_history_lost", "source.pipeline.0.$match.a", "unknown",
    "source.pipeline.0.$match.a.1.b",
]  # fmt: skip


def with_half_at(path: str, half: str = HALF) -> bytes:
    """A watcher with half a character at a dotted path, as JSON in ASCII."""
    body: Any = json.loads(json.dumps(ORDERS))
    inner, steps = body, path.split(".")
    for step, following in zip(steps, [*steps[1:], None], strict=True):
        value: Any = half if following is None else [None] * (int(following) + 1) if following.isdecimal() else {}
        if isinstance(inner, list):
            inner[int(step)] = value
        elif following is None or not isinstance(inner.get(step), type(value)):
            inner[step] = value
        inner = inner[int(step)] if isinstance(inner, list) else inner[step]
    return json.dumps(body).encode()


@pytest.mark.parametrize("path", PLACES)
@pytest.mark.parametrize("half", ["a\ud800b", "\udfff", "\ude00\ud83d", "\\\ud800"], ids=ascii)
async def test_half_a_character_is_422_on_its_field(
    client: httpx.AsyncClient, registry: FakeRegistry, path: str, half: str
) -> None:
    answer = await client.post("/watchers", content=with_half_at(path, half), headers=JSON)
    errors = problem(answer, 422)["errors"]
    assert [each["field"] for each in errors] == [path]
    assert "surrogate" in errors[0]["detail"]
    assert registry.views == {}


@pytest.mark.parametrize(
    ("method", "path", "content", "field"),
    [
        ("POST", "/watchers", b'{"name":"w","\\uD800":1}', "\\ud800"),
        ("POST", "/watchers", b'{"name":"w","source":{"pipeline":[{"$match":{"a\\udfff":1}}]}}',
         "source.pipeline.0.$match.a\\udfff"),
        ("PUT", "/watchers/orders", b'{"source":{"database":"\\ud800"}}', "source.database"),
        ("PUT", "/watchers/orders/token", b'{"token":"\\ud800"}', "token"),
        ("PUT", "/watchers/orders/token", b'{"at":"\\ud800"}', "at"),
        ("POST", "/watchers", b'"\\ud800"', "body"),
    ],
)  # fmt: skip
async def test_half_a_character_in_any_body_is_422(
    client: httpx.AsyncClient, method: str, path: str, content: bytes, field: str
) -> None:
    answer = await client.request(method, path, content=content, headers=JSON)
    assert [each["field"] for each in problem(answer, 422)["errors"]] == [field]


@pytest.mark.parametrize("text", ["\U0001f600", "\\ud800", "\\\\ud800 \U0001f600", "\ud7ff\ue000"], ids=ascii)
async def test_whole_characters_pass_however_they_are_escaped(client: httpx.AsyncClient, text: str) -> None:
    body = json.loads(json.dumps(ORDERS))
    body["source"]["pipeline"] = [{"$match": {text: text}}]
    answer = await client.post("/watchers", content=json.dumps(body).encode(), headers=JSON)
    assert answer.status_code == 201
    assert answer.json()["source"]["pipeline"] == [{"$match": {text: text}}]


@pytest.mark.parametrize("headers", [{}, {"Content-Type": "text/plain"}, {"Content-Type": "application/x+json"}])
async def test_half_a_character_in_a_body_of_any_type_is_not_taken(
    client: httpx.AsyncClient, registry: FakeRegistry, headers: dict[str, str]
) -> None:
    answer = await client.post("/watchers", content=with_half_at("source.database"), headers=headers)
    problem(answer, 422 if "json" in str(headers) else 415)
    assert registry.views == {}


async def test_half_a_character_behind_very_many_values_is_422_too(client: httpx.AsyncClient) -> None:
    many = b'{"name":"w","source":{"pipeline":[' + b'"",' * (MAX_VALUES - 100) + b'"\\ud800"]}}'
    assert problem(await client.post("/watchers", content=many, headers=JSON), 422)["errors"]


@pytest.mark.parametrize("path", ["/watchers/%ED%A0%80", "/watchers/a%ED%A0%80/token", "/watchers/%C3"])
async def test_bytes_that_are_no_text_in_a_path_are_no_watcher(client: httpx.AsyncClient, path: str) -> None:
    problem(await client.get(path), 404)


async def test_bytes_that_are_no_text_in_a_query_are_422(client: httpx.AsyncClient) -> None:
    problem(await client.get("/watchers?state=%ED%A0%80"), 422)
    problem(await client.get("/watchers?%ED%A0%80=1"), 422)
    problem(await client.delete("/watchers/orders?checkpoint=%ED%A0%80"), 422)


@pytest.mark.parametrize("key", ["dbName", "collName", "tokensDbName", "tokensCollName", "streamName"])
def test_half_a_character_in_the_file_is_refused_by_its_key(key: str) -> None:
    keys = {"dbName": "shop", "collName": "orders", key: "X"}
    lines = "".join(f"{name}: {value}, " for name, value in keys.items()).replace("X", '"a\\ud800"')
    with pytest.raises(ConnectorFileError) as refused:
        parse(f"connector: {{collections: [{{{lines}}}]}}")
    assert f"line 1: connector.collections[0].{key} holds half of a surrogate pair" in str(refused.value)
    str(refused.value).encode()


def test_half_a_character_in_a_setting_of_the_file_is_refused() -> None:
    with pytest.raises(ConnectorFileError, match=r"connector\.nats\.url holds half of a surrogate pair"):
        parse('connector: {nats: {url: "nats://\\udfff"}}')


@pytest.mark.parametrize(
    "variable",
    ["MONGO_URI", "NATS_URL", "CHANGEWIRE_STATE_DB", "CHANGEWIRE_NAMESPACES", "CHANGEWIRE_NATS_USER", "CONFIG_FILE",
     "CHANGEWIRE_NATS_CREDS"],
)  # fmt: skip
def test_a_variable_that_is_no_text_stops_the_start_by_name(variable: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=f"{variable} is not UTF-8 text") as refused:
        load(environ={variable: "x\udcff", "CHANGEWIRE_NATS_PASSWORD": "x"}, dotenv=tmp_path / "none")
    str(refused.value).encode()


@pytest.mark.parametrize("arguments", [["watchers", "show", "a\udcff"], ["verify", "\udcff"], ["\udcff"]])
def test_an_argument_that_is_no_text_is_misuse(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert f"argument {len(arguments)} is not UTF-8 text" in capsys.readouterr().err


def test_a_stored_watcher_with_half_a_character_is_told_by_its_field() -> None:
    found = problems(watcher(HALF), state_database="state")
    assert all("surrogate" in each.problem for each in found)
    assert {each.field for each in found} == {
        "name", "source.collection", "sink.stream", "checkpoint.collection",
    }  # fmt: skip
