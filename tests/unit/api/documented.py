"""Whether an answer is one that openapi.json has for the call: its status, its kind of content, and its shape."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any

import httpx
import jsonschema_rs
import orjson

from app.api import openapi_document

PROBLEM = "application/problem+json"
ANYWHERE = {403, 404, 405, 413, 414, 500}
"""Statuses of problems that no call documents: they come before a call is found, or from a fault."""


def assert_documented(answer: httpx.Response) -> None:
    """Fail where the document does not know this answer. The body has to have been read; that of a HEAD is none."""
    if answer.request.method == "HEAD":
        return
    call = _call(answer.request.method, answer.request.url.path)
    kind = answer.headers.get("content-type", "").partition(";")[0]
    if kind == PROBLEM:
        assert call is None or str(answer.status_code) in call["responses"] or answer.status_code in ANYWHERE
        assert_shape("Problem", answer.content)
    elif call is not None:
        described = call["responses"].get(str(answer.status_code))
        assert described is not None, f"{answer.request.url.path} does not document {answer.status_code}"
        contents = described.get("content", {})
        assert kind in contents or not (contents or answer.content), kind
        if kind == "application/json":
            _validator(contents[kind]["schema"]).validate(orjson.loads(answer.content))


def assert_shape(component: str, body: bytes) -> None:
    """Fail where a JSON text is not of a component of the document."""
    _validator({"$ref": f"#/components/schemas/{component}"}).validate(orjson.loads(body))


@cache
def _document() -> dict[str, Any]:
    return openapi_document()


@cache
def _patterns() -> list[tuple[re.Pattern[str], dict[str, Any]]]:
    paths = sorted(_document()["paths"].items(), key=lambda each: each[0].count("{"))
    return [(re.compile(re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(path))), calls) for path, calls in paths]


def _call(method: str, path: str) -> dict[str, Any] | None:
    found = next((calls for pattern, calls in _patterns() if pattern.fullmatch(path)), {})
    call: dict[str, Any] | None = found.get(method.lower())
    return call


def _validator(schema: dict[str, Any]) -> Any:
    return _made(json.dumps(schema))


@cache
def _made(schema: str) -> Any:
    return jsonschema_rs.Draft202012Validator(json.loads(schema) | {"components": _document()["components"]})
