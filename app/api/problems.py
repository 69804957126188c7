"""Every error as `application/problem+json` (RFC 9457): what was wrong and what to do, never a secret or a traceback.

`install` attaches the handlers; `Shelter` stands around the application and turns what nobody expected into a
problem with an id that is also in the log. Every answer is short, however much was wrong. Not its business: deciding
that a request is wrong, which `api/middleware/limits.py`, `api/schemas/requests.py`, `auth.py` and the registry do.
"""

import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from itertools import islice
from typing import Any, TypeGuard, get_type_hints

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.config.logging import redact
from app.domain.errors import (
    ChangewireError,
    Conflict,
    FieldProblem,
    Invalid,
    NotFound,
    Outdated,
    RegistryError,
    TransientError,
    Unavailable,
)  # fmt: skip

MEDIA_TYPE = "application/problem+json"
MAX_ERRORS = 50
"""Fields that are named in one answer; a person corrects those first."""
MAX_FIELD, MAX_PROBLEM, MAX_DETAIL = 200, 500, 4000
"""Characters of a field's path, of what is wrong with it, and of a `detail`: parts of the request may be in them."""

HEAD_ASKED = "changewire.head"
"""In the scope of a GET that was a HEAD: an answer without an end has to end for a HEAD."""

log = structlog.get_logger(__name__)

_REGISTRY_ERRORS: dict[type[RegistryError], int] = {
    Invalid: 422,
    NotFound: 404,
    Conflict: 409,
    Outdated: 412,
    Unavailable: 503,
}

SCHEMAS: dict[str, Any] = {
    "FieldProblem": {
        "type": "object",
        "title": "FieldProblem",
        "description": "One thing wrong with a request.",
        "required": ["field", "problem"],
        "properties": {
            "field": {"type": "string", "description": "Dotted path of the field.", "examples": ["sink.stream"]},
            "problem": {"type": "string", "examples": ["is empty"]},
        },
    },
    "Problem": {
        "type": "object",
        "title": "Problem",
        "description": "What went wrong (RFC 9457).",
        "required": ["type", "title", "status", "detail"],
        "properties": {
            "type": {
                "type": "string",
                "description": "The kind of problem. `about:blank` when the status says everything.",
                "examples": ["urn:changewire:conflict"],
            },
            "title": {"type": "string", "examples": ["Conflict"]},
            "status": {"type": "integer", "examples": [409]},
            "detail": {"type": "string", "description": "What is wrong, and what to do about it."},
            "instance": {"type": "string", "description": "With status 500: the id of the error in the log."},
            "errors": {
                "type": "array",
                "description": "With status 422: the wrong fields, at most 50.",
                "items": {"$ref": "#/components/schemas/FieldProblem"},
            },
        },
    },
}
"""The OpenAPI components that `documented` refers to."""

_DESCRIPTIONS = {
    400: "The body is not JSON.",
    401: "An API token is required, and the request has none that is valid.",
    403: "The token has the role `read` only; or there is no token, and the request may come from another site's page "
    "(`Host`, `Origin`) or, for a change, from another machine.",
    404: "There is no such watcher.",
    409: "The request conflicts with the current state; `detail` says what to do.",
    412: "`If-Match` does not name the watcher's current revision; read the watcher again.",
    413: "The body is larger than 1 MiB, or holds more than 20000 values.",
    415: "The body is not sent as application/json.",
    422: "The request is not valid; `errors` names the fields.",
    503: "A server that this call needs cannot be reached.",
}


class Problem(Exception):
    """An error on its way out. Raise it, or send `response()`.

    `kind` ends the problem's `type`; without one it is `about:blank` and `title` should be the status's own phrase.
    """

    def __init__(
        self,
        status: int,
        title: str,
        detail: str,
        *,
        kind: str | None = None,
        errors: Iterable[FieldProblem] = (),
        instance: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.headers = dict(headers or {})
        self.body: dict[str, Any] = {
            "type": f"urn:changewire:{kind}" if kind else "about:blank",
            "title": title,
            "status": status,
            "detail": short(detail, MAX_DETAIL),
        }
        if instance is not None:
            self.body["instance"] = instance
        listed = [
            {"field": short(each.field, MAX_FIELD), "problem": short(each.problem, MAX_PROBLEM)}
            for each in islice(errors, MAX_ERRORS)
        ]
        if listed:
            self.body["errors"] = listed

    def response(self) -> Response:
        content = json.dumps(self.body, ensure_ascii=False, separators=(",", ":")).encode(
            "utf-8", "replace"
        )  # a lone surrogate has no UTF-8
        return Response(content, self.status, {"Cache-Control": "no-store", **self.headers}, MEDIA_TYPE)


def short(text: str, most: int) -> str:
    """The text without credentials, and its beginning alone where it is longer than `most` characters."""
    text = redact(text[: 4 * most])  # looking for credentials takes time with each character
    return text if len(text) <= most else f"{text[: most - 1]}…"


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a call, for OpenAPI."""
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        status: {"description": _DESCRIPTIONS[status], "content": {MEDIA_TYPE: {"schema": schema}}}
        for status in statuses
    }


def install(app: FastAPI) -> None:
    """Attach the handlers for everything that is raised inside the application."""
    app.add_exception_handler(Problem, _from_problem)
    app.add_exception_handler(ChangewireError, _from_changewire)
    app.add_exception_handler(RequestValidationError, _from_validation)
    app.add_exception_handler(HTTPException, _from_http)


async def _from_problem(_request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return error.response()


async def _from_changewire(request: Request, error: Exception) -> Response:
    if isinstance(error, Invalid) and error.problems:
        return invalid(error.problems).response()
    for kind, status in _REGISTRY_ERRORS.items():
        if isinstance(error, kind):
            return _named(status, kind.__name__, error).response()
    if isinstance(error, TransientError):
        return _named(503, "Unavailable", error).response()
    return unexpected(request.scope, error).response()


def _named(status: int, name: str, error: Exception) -> Problem:
    headers = {"Retry-After": "5"} if status == 503 else None
    kind = {"NotFound": "not-found"}.get(name, name.lower())
    title = {"NotFound": "Not found"}.get(name, name)
    return Problem(status, title, str(error), kind=kind, headers=headers)


def invalid(problems: Iterable[FieldProblem]) -> Problem:
    """422 with its list of fields."""
    listed = tuple(problems)
    said = [f"{short(each.field, MAX_FIELD)} {short(each.problem, MAX_PROBLEM)}" for each in listed[:MAX_ERRORS]]
    if len(listed) > MAX_ERRORS:
        said.append(f"and {len(listed) - MAX_ERRORS} more")
    return Problem(422, "Invalid", "; ".join(said), kind="invalid", errors=listed)


async def _from_validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    found = error.errors()
    for each in found:
        if each["type"] == "json_invalid":
            place = each["loc"][-1]
            at = f" at character {place}" if isinstance(place, int) else ""
            what = (each.get("ctx") or {}).get("error", "it cannot be parsed")
            return Problem(400, "Bad Request", f"the body is not JSON{at}: {what}", kind="malformed").response()
        if tuple(each["loc"]) == ("body",) and each["type"] != "missing" and not is_json(request.headers):
            detail = "send the body as JSON, with the header 'Content-Type: application/json'"
            return Problem(415, "Unsupported Media Type", detail).response()
    shape = get_type_hints(request.scope["endpoint"]).get("body")
    return invalid(_field_problem(each, shape) for each in found).response()


def is_json(headers: Headers) -> bool:
    """Whether the body is said to be JSON."""
    essence = headers.get("content-type", "").partition(";")[0].strip().lower()
    return essence == "application/json" or (essence.startswith("application/") and essence.endswith("+json"))


def _field_problem(error: Mapping[str, Any], shape: type[BaseModel] | None) -> FieldProblem:
    """One finding of pydantic, without the value: it may be a secret in the wrong place. `shape` is the body's."""
    place, *path = error["loc"]
    field = ".".join(str(part)[:100] for part in path) or ("body" if place == "body" else str(place))
    kind, cause = error["type"], (error.get("ctx") or {}).get("error")
    if kind == "extra_forbidden":
        beside = _fields_at(shape, path[:-1]) if place == "body" else []
        problem = "is not a known field" + (f"; known fields: {', '.join(beside)}" if beside else "")
    elif kind == "missing":
        problem = "is required"
    elif isinstance(cause, Exception):
        problem = str(cause)
    elif kind in ("model_attributes_type", "model_type", "dict_type"):
        problem = "must be an object"
    else:
        problem = str(error["msg"]).replace("Input should", "must", 1)
    return FieldProblem(field, problem)


def _fields_at(shape: Any, path: Sequence[int | str]) -> list[str]:
    """The fields that the body's shape has where `path` leads."""
    for step in path:
        field = shape.model_fields.get(str(step)) if _has_fields(shape) else None
        shape = field.annotation if field is not None else None
    return sorted(shape.model_fields) if _has_fields(shape) else []


def _has_fields(shape: Any) -> TypeGuard[type[BaseModel]]:
    return isinstance(shape, type) and issubclass(shape, BaseModel)


async def _from_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    detail = str(error.detail)
    path = request.url.path
    if error.status_code == 404:
        detail = f"nothing found at {path[:200]}; /docs lists all calls"
    elif error.status_code == 405:
        # The framework names the methods of the first route of that path alone.
        allowed = ", ".join(_methods(request))
        detail = f"{request.method} is not allowed at {path[:200]}; allowed: {allowed}"
        return Problem(405, HTTPStatus(405).phrase, detail, headers={"Allow": allowed}).response()
    elif error.status_code == 400:
        detail = "the body cannot be read as JSON"
    return Problem(error.status_code, HTTPStatus(error.status_code).phrase, detail, headers=error.headers).response()


def _methods(request: Request) -> list[str]:
    def possible(method: str) -> bool:
        scope = {**request.scope, "method": method}
        return any(route.matches(scope)[0] is Match.FULL for route in request.app.router.routes)

    found = [method for method in ("DELETE", "GET", "POST", "PUT") if possible(method)]
    return sorted([*found, "HEAD"]) if "GET" in found else found


def unexpected(scope: Scope, error: BaseException) -> Problem:
    """500 for what nobody expected; the log has the traceback under the same id."""
    instance = uuid.uuid4().hex[:12]
    log.error("request_failed", id=instance, method=scope["method"], path=scope["path"][:300], exc_info=error)
    detail = f"internal error in Changewire; see the log under the id {instance}"
    if isinstance(error, ChangewireError):  # their texts are made for people
        detail = f"{error} (see the log under the id {instance})"
    return Problem(500, "Internal Server Error", detail, kind="internal", instance=f"urn:changewire:error:{instance}")


class Shelter:
    """ASGI middleware around everything: no exception gets past it."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun = False

        async def watched_send(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self.app(scope, receive, watched_send)
        except Exception as error:  # whatever it is: the client gets a problem and the log the traceback
            problem = unexpected(scope, error)
            if begun:
                raise
            await problem.response()(scope, receive, send)


class HeadAsGet:
    """ASGI middleware: whatever answers GET answers HEAD, which some probes use. The server leaves the body out."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        head = scope.get("method") == "HEAD"
        await self.app({**scope, "method": "GET", HEAD_ASKED: True} if head else scope, receive, send)
