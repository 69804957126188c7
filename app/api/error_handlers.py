"""Every exception that leaves a call becomes a problem here: the domain's errors, the framework's, and the unexpected.

The framework's errors are reworded, so that one error reads the same at every call. An unexpected one gets an id, under
which the log has the traceback.
"""

import re
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from http import HTTPStatus
from typing import Any, TypeGuard, get_args, get_type_hints

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Scope

from app.api.problems import INTERNAL, MANY, MAX_ERRORS, MOVED, ONE, RETRY_AFTER, Problem, invalid, kind_of
from app.domain.errors import ChangewireError, Conflict, Elsewhere, FieldProblem, Invalid

log = structlog.get_logger(__name__)


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
    kind = kind_of(type(error))
    if kind is INTERNAL:
        return unexpected(request.scope, error).response()
    headers = RETRY_AFTER if kind.status == 503 else {}
    if isinstance(error, Elsewhere):
        headers = headers | {MOVED: "1"}
    errors = error.problems if isinstance(error, Conflict) else ()
    return Problem(kind.status, kind.title, str(error), kind=kind.type, errors=errors, headers=headers).response()


async def _from_validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    shape = get_type_hints(request.scope["endpoint"]).get("body")
    found = error.errors()
    if get_args(shape):
        found = [each | {"loc": _without_form(each["loc"])} for each in found]
    for each in found:
        if each["type"] == "json_invalid":
            place = each["loc"][-1]
            at = f" at character {place}" if isinstance(place, int) else ""
            what = (each.get("ctx") or {}).get("error", "it cannot be parsed")
            return Problem(400, "Bad Request", f"the body is not JSON{at}: {what}", kind="malformed").response()
        if tuple(each["loc"]) == ("body",) and each["type"] != "missing" and not is_json(request.headers):
            detail = "send the body as JSON, with the header 'Content-Type: application/json'"
            return Problem(415, "Unsupported Media Type", detail).response()
    model = _model_in(shape)
    problems = [_named(_field_problem(each, model), error.body) for each in found]
    by_rules = getattr(model, "other_problems", None)  # only what describes a watcher has rules
    if by_rules is not None:
        rules = request.app.state.registry.rules.problems
        places = [each["loc"] for each in found]
        problems += _beside(len(problems), places, error.body, lambda given, wrong: by_rules(given, wrong, rules))
    return invalid(problems).response()


def _named(problem: FieldProblem, body: Any) -> FieldProblem:
    """The problem with the name of the watcher that it is about, where the body is a list of watchers."""
    number = re.match(r"\[(\d+)\]", problem.field)
    entry = body[int(number[1])] if number is not None and isinstance(body, list) else None
    name = entry.get("name") if isinstance(entry, dict) else None
    return replace(problem, watcher=name) if isinstance(name, str) else problem


def _beside(
    known: int,
    places: Sequence[Sequence[int | str]],
    body: Any,
    look: Callable[[Any, Sequence[Sequence[int | str]]], Iterable[FieldProblem]],
) -> Iterator[FieldProblem]:
    """What the rules find in the fields of the right form, so that all is corrected at once. `known` are the problems
    of form, at these places of the body; `look` is asked about a watcher, with the places in it that are wrong."""
    if not isinstance(body, list):
        yield from look(body, [place[1:] for place in places])
        return
    wrong = defaultdict[int, list[Sequence[int | str]]](list)
    for _, *path in places:
        if path and isinstance(path[0], int):
            wrong[path[0]].append(path[1:])
    left = MAX_ERRORS + 1 - known  # one more than is shown, so that it is said that there are more
    for number, entry in enumerate(body):
        if left <= 0:
            return
        for found in look(entry, wrong[number]):
            yield found.of(number, str(entry.get("name", "")))
            left -= 1


def _without_form(place: Sequence[int | str]) -> tuple[int | str, ...]:
    """The place of an error in a body of several forms, without the name of the form, which nobody has sent."""
    named = place[0] == "body" and len(place) > 1 and place[1] in (ONE, MANY)
    return (place[0], *place[2:]) if named else tuple(place)


def _model_in(shape: Any) -> type[BaseModel] | None:
    """The model that a body is, or of which it may be a list as well."""
    return next((each for each in (shape, *get_args(shape)) if _has_fields(each)), None)


def is_json(headers: Headers) -> bool:
    """Whether the body is said to be JSON."""
    essence = headers.get("content-type", "").partition(";")[0].strip().lower()
    return essence == "application/json" or (essence.startswith("application/") and essence.endswith("+json"))


def _field_problem(error: Mapping[str, Any], shape: type[BaseModel] | None) -> FieldProblem:
    """One finding of pydantic, without the value: it may be a secret in the wrong place. `shape` is the body's."""
    place, *path = error["loc"]
    field = _dotted(path) or ("body" if place == "body" else str(place))
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
    elif kind in _MISFITS:
        problem = _MISFITS[kind].format_map(error.get("ctx") or {})
    else:
        problem = str(error["msg"]).replace("Input should", "must", 1)
    return FieldProblem(field, problem)


_MISFITS = {
    "list_type": "must be a list",
    "too_short": "must have {min_length} or more entries, and has {actual_length}",
    "too_long": "must have at most {max_length} entries, and has {actual_length}",
}
"""What is wrong with a list, in fewer words than pydantic's."""


def _dotted(path: Sequence[int | str]) -> str:
    """`sink.operations.0`; the place in a list of watchers comes first: `[3].sink.stream`."""
    parts = [str(part)[:100] for part in path]
    return ".".join([f"[{parts[0]}]", *parts[1:]] if path and isinstance(path[0], int) else parts)


def _fields_at(shape: Any, path: Sequence[int | str]) -> list[str]:
    """The fields that the body's shape has where `path` leads."""
    for step in path:
        if isinstance(step, int):
            continue
        field = shape.model_fields.get(str(step)) if _has_fields(shape) else None
        shape = field.annotation if field is not None else None
        shape = next(filter(_has_fields, get_args(shape)), shape)  # one that may be null as well
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
    """Log the traceback under an id, and answer 500 with that id."""
    instance = uuid.uuid4().hex[:12]
    log.error("request_failed", id=instance, method=scope["method"], path=scope["path"][:300], exc_info=error)
    detail = f"internal error in Changewire; see the log under the id {instance}"
    if isinstance(error, ChangewireError):  # its text is made for people
        detail = f"{error} (see the log under the id {instance})"
    place = f"urn:changewire:error:{instance}"
    return Problem(INTERNAL.status, INTERNAL.title, detail, kind=INTERNAL.type, instance=place)
