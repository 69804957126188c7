"""One request, however it is made, costs little: values are counted before they are looked at, answers are short."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.api.middleware.limits import MAX_BODY, MAX_PARAMETERS, MAX_VALUES, most_values
from app.api.problems import MAX_DETAIL, MAX_ERRORS, MAX_FIELD, MAX_PROBLEM, Problem
from app.api.schemas.base import MAX_ITEMS, MAX_TEXT
from app.api.schemas.values import MAX_PIPELINE
from app.domain.errors import FieldProblem
from tests.unit.api.calls import JSON, ORDERS, problem

SHORT = 64 * 1024
"""Bytes of an answer that names 50 fields."""


def body(part: str, inner: bytes) -> bytes:
    """A watcher with `inner` as one of its parts."""
    wrap = {
        "pipeline": b'{"name":"a","source":{"database":"d","collection":"c","pipeline":%b}}',
        "sink": b'{"name":"a","source":{"database":"d","collection":"c"},"sink":%b}',
        "whole": b"%b",
    }
    return wrap[part] % inner


def full(piece: bytes, between: bytes = b"[%b]") -> bytes:
    """A list of as many of these as a body takes."""
    return between % b",".join([piece] * ((MAX_BODY - 200) // (len(piece) + 1)))


def keys(count: int) -> bytes:
    return b"{%b}" % b",".join(b'"%x":1' % number for number in range(count))


@pytest.mark.parametrize(
    ("part", "inner"),
    [
        ("pipeline", full(b"[]")), ("pipeline", full(b"1")), ("pipeline", full(b'{"a":1}')), ("pipeline", full(b'"x"')),
        ("pipeline", full(b"{}", b'[{"$match":{"a":{"$in":[%b]}}}]')), ("pipeline", b"[%b]" % keys(90_000)),
        ("whole", keys(90_000)), ("sink", keys(90_000)), ("sink", full(b'"x"', b'{"operations":[%b]}')),
        ("sink", full(b"[]", b'{"operations":[%b]}')), ("whole", full(b"[]")), ("whole", b"[" * MAX_BODY),
        ("whole", b'{"a":' * (MAX_BODY // 5)), ("pipeline", full(b'"\\\\","\\""')),
    ],
)  # fmt: skip
async def test_too_many_values_are_refused_before_they_are_parsed(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, part: str, inner: bytes
) -> None:
    parsed: list[Any] = []
    monkeypatch.setattr(json, "loads", parsed.append)
    answer = await client.post("/watchers", content=body(part, inner), headers=JSON)
    monkeypatch.undo()
    assert f"{MAX_VALUES} values" in problem(answer, 413)["detail"]
    assert parsed == []


@pytest.mark.parametrize(
    ("part", "inner"),
    [
        ("pipeline", b"[%b]" % b",".join([b"[]"] * (MAX_VALUES // 2 - 100))),
        ("pipeline", b"[%b]" % b",".join([b"[]"] * MAX_ITEMS)),
        ("whole", keys(MAX_VALUES - 100)), ("whole", keys(MAX_ITEMS)), ("sink", keys(MAX_VALUES - 100)),
        ("sink", b'{"operations":[%b]}' % b",".join([b'"x"'] * MAX_ITEMS)),
        ("sink", b'{"operations":["%b"]}' % (b"x" * (MAX_BODY - 200))),
        ("sink", b'{"operations":["%b"]}' % (b"://" * 300_000 + b"@")),
        ("sink", b'{"%b":1}' % (b"x" * (MAX_BODY - 200))), ("sink", b'{"subject":"%b"}' % (b"{" * 900_000)),
        ("sink", b'{"stream":"%b"}' % (b"a." * 400_000)),
        ("whole", b'{"source":{"database":"%b"}}' % (b"a " * 400_000)),
        ("pipeline", b'[{"$match":{"a":[%b]}}]' % b",".join([b"1" * 4299] * 200)),
        ("whole", b'{"name":"%b"}' % (b"\\u00e4" * 150_000)),
    ],
)  # fmt: skip
async def test_whatever_is_wrong_the_answer_is_short_and_memory_stays(
    client: httpx.AsyncClient, part: str, inner: bytes
) -> None:
    content = body(part, inner)
    await client.post("/watchers", content=b"{}", headers=JSON)  # what is made once is made by now
    tracemalloc.start()
    try:
        answer = await client.post("/watchers", content=content, headers=JSON)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(problem(answer, 422)["errors"]) <= MAX_ERRORS
    assert len(answer.content) <= SHORT
    assert most < 12 * MAX_BODY


async def test_of_many_errors_the_first_are_named_and_the_others_counted(client: httpx.AsyncClient) -> None:
    wrong = {**ORDERS, "source": {**ORDERS["source"], "pipeline": [1] * MAX_ITEMS}}
    said = problem(await client.post("/watchers", json=wrong), 422)
    assert [each["field"] for each in said["errors"]] == [f"source.pipeline.{number}" for number in range(MAX_ERRORS)]
    assert said["detail"].endswith(f"; and {MAX_ITEMS - MAX_ERRORS} more") or said["detail"].endswith("…")
    domain = {**ORDERS, "sink": {"operations": ["x"] * MAX_ITEMS}}
    said = problem(await client.post("/watchers", json=domain), 422)
    assert len(said["errors"]) == MAX_ERRORS


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("pipeline", [{"$match": {"a": "x" * MAX_PIPELINE}}], f"the maximum is {MAX_PIPELINE}"),
        ("pipeline", [{"$match": {}}] * (MAX_ITEMS + 1), f"more than {MAX_ITEMS} items"),
        ("database", "x" * (MAX_TEXT + 1), f"longer than {MAX_TEXT} characters"),
    ],
)
async def test_each_limit_is_named(client: httpx.AsyncClient, path: str, value: Any, said: str) -> None:
    watcher = {**ORDERS, "source": {**ORDERS["source"], path: value}}
    (error,) = problem(await client.post("/watchers", json=watcher), 422)["errors"]
    assert error["field"] == f"source.{path}"
    assert said in error["detail"]


async def test_what_is_within_the_limits_is_taken(client: httpx.AsyncClient) -> None:
    text = {"$match": {"a": ',[{"' * (MAX_PIPELINE // 10)}}
    numbers = {"$match": {"a": {"$in": list(range(MAX_VALUES - 100))}}}
    for name, stage in (("text", text), ("numbers", numbers)):
        definition = {**ORDERS, "name": name, "source": {**ORDERS["source"], "pipeline": [stage]}}
        assert (await client.post("/watchers", json=definition)).status_code == 201
        assert (await client.get(f"/watchers/{name}")).json()["source"]["pipeline"] == [stage]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32"])
async def test_json_in_another_encoding_is_refused(client: httpx.AsyncClient, encoding: str) -> None:
    answer = await client.post("/watchers", content=json.dumps(ORDERS).encode(encoding), headers=JSON)
    assert "UTF-8" in problem(answer, 400)["detail"]


values = st.recursive(
    st.none() | st.integers() | st.text(alphabet='a,[{"\\:]}ä'),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(alphabet='a,[{"\\'), inner, max_size=5),
    max_leaves=20,
)


@given(values, st.integers(0, 30), st.booleans())
def test_never_fewer_values_are_counted_than_there_are(value: Any, most: int, ascii_only: bool) -> None:
    def count(each: Any) -> int:
        inner = each.values() if isinstance(each, dict) else each if isinstance(each, list) else ()
        return 1 + sum(map(count, inner))

    text = json.dumps(value, ensure_ascii=ascii_only).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("app.api.middleware.limits.MAX_VALUES", most)
        assert (most_values(text) > most) or count(value) <= most


any_text = st.text(st.characters() | st.sampled_from("\ud800\udfff\x00\x1b\u202e"), max_size=60)


@given(any_text, any_text, any_text, st.integers(1, 3000))
def test_a_problem_can_be_written_whatever_text_is_in_it(detail: str, field: str, wrong: str, times: int) -> None:
    found = Problem(422, "Invalid", detail * times, errors=[FieldProblem(field * times, wrong * times)] * 60)
    said = json.loads(bytes(found.response().body))
    assert len(said["detail"]) <= MAX_DETAIL
    assert len(said["errors"]) == MAX_ERRORS
    assert all(len(each["field"]) <= MAX_FIELD and len(each["detail"]) <= MAX_PROBLEM for each in said["errors"])


async def test_a_query_of_many_parameters_is_refused(client: httpx.AsyncClient) -> None:
    many = "&".join(f"{number}=1" for number in range(MAX_PARAMETERS + 1))
    problem(await client.get(f"/watchers?{many}"), 414)
    few = "&".join(f"{number}=1" for number in range(MAX_PARAMETERS))
    assert len(problem(await client.get(f"/watchers?{few}"), 422)["errors"]) == MAX_ERRORS
