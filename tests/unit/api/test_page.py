"""The page's files: all there, served with headers that forbid a browser everything else, and none but them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, get_args

import httpx
import pytest

from app.api.routes.page import FOLDER
from app.api.schemas.status import StatusAnswer
from app.jetstream.streams import Mode


async def test_page_and_all_that_it_names_are_there_and_allow_only_their_own_origin(client: httpx.AsyncClient) -> None:
    waiting, seen = ["/", "/docs"], set[str]()
    while waiting:
        path = waiting.pop()
        seen.add(path)
        answer = await client.get(path)
        assert answer.status_code == 200, path
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'self';")
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        named = re.findall(r'(?:src|href)="(assets/[^"]+)"', answer.text) if path in ("/", "/docs") else []
        folder = path.rpartition("/")[0]
        named += [folder.lstrip("/") + each[1:] for each in re.findall(r'from\s*"(\./[^"]+)"', answer.text)]
        waiting += [f"/{each}" for each in named if f"/{each}" not in seen]
    files = {
        f"/assets/{file.relative_to(FOLDER)}" for file in FOLDER.rglob("*") if file.suffix in (".js", ".css", ".svg")
    }
    assert seen - {"/", "/docs"} == files, "a file that nothing names, or the other way round"


@pytest.mark.parametrize("name", ["index.html", "docs.html"])
def test_pages_have_neither_inline_scripts_nor_inline_styles_nor_foreign_addresses(name: str) -> None:
    text = (FOLDER / name).read_text()
    assert re.findall(r"<script(?![^>]*\ssrc=)|<style|\sstyle=|\son\w+=|https?://", text) == []


def test_page_has_words_for_each_publish_mode() -> None:
    text = (FOLDER / "overview.js").read_text()
    block = text.partition("const MODES = {")[2].partition("};")[0]
    assert set(re.findall(r"^  (\w+):", block, re.MULTILINE)) == set(get_args(Mode))


def test_page_has_words_for_each_kind_of_change_stream_and_shows_the_reason() -> None:
    text = (FOLDER / "overview.js").read_text()
    block = text.partition("const READS = {")[2].partition("};")[0]
    kinds = get_args(StatusAnswer.model_fields["reads"].annotation)[0]
    assert set(re.findall(r"(\w+):", block)) == set(get_args(kinds))
    assert "status.reads_why" in text


async def test_file_that_has_not_changed_is_not_sent_again(client: httpx.AsyncClient) -> None:
    tag = (await client.get("/assets/app.js")).headers["etag"]
    again = await client.get("/assets/app.js", headers={"If-None-Match": tag})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize(
    "path",
    ["nothing.js", "vendor", "vendor/README.md", "%2e%2e/main.py", "..%2f..%2fREADME.md", "/etc/x.js",
     "%2fetc%2fhost.js", "app.js%00.svg", "vendor/%2e%2e/%2e%2e/main.py"],
)  # fmt: skip
async def test_nothing_else_is_to_be_had_there(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.get(f"/assets/{path}")
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")


def choices(schemas: dict[str, Any], schema: dict[str, Any], at: str = "") -> Iterator[tuple[str, set[str]]]:
    """Every field of a form that is one of some words, with these words."""
    while "$ref" in schema:
        schema = schemas[schema["$ref"].rpartition("/")[2]]
    for name, member in schema.get("properties", {}).items():
        yield from choices(schemas, member, f"{at}.{name}" if at else name)
    forms = [each for each in schema.get("anyOf", [schema]) if isinstance(each, dict)]
    for form in forms:
        if "$ref" in form:
            yield from choices(schemas, form, at)
    words = {word for form in forms for word in form.get("enum", [])}
    if words:
        yield at, words | {name for form in forms for name in form.get("properties", {})}


def test_form_says_what_each_word_of_a_choice_means(client_openapi: dict[str, Any]) -> None:
    schemas = client_openapi["components"]["schemas"]
    block = (FOLDER / "labels.js").read_text().partition("const OPTIONS = {")[2].partition("\n};")[0]
    said = {
        path.strip('"'): set(re.findall(r'(\w+): "', words))
        for path, words in re.findall(r'^  ("[\w.]+"|\w+): \{(.*)\},$', block, re.MULTILINE)
    }
    assert said == dict(choices(schemas, schemas["NewWatcher"]))


@pytest.fixture
def client_openapi() -> dict[str, Any]:
    return dict(json.loads((FOLDER.parent.parent.parent / "openapi.json").read_text()))
