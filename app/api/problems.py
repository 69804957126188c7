"""What is answered when something is wrong: `application/problem+json` (RFC 9457), and which error is which problem.

A problem says what was wrong and what to do, and never holds a secret or a traceback. It is short, however much was
wrong. `KINDS` is the one table from errors to answers; `error_handlers.py` applies it to what a call raises.

The body is made by `Problem`, not by a model: it must be written whatever text is in it, also half of a surrogate pair,
and a field that has nothing to say is left out. Tests hold every problem against `SCHEMAS`.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from starlette.responses import Response

from app.config.logging import redact
from app.control.refusals import MOST_TOLD
from app.domain.errors import (
    ChangewireError,
    CollectionMoved,
    Conflict,
    Elsewhere,
    Fenced,
    FieldProblem,
    Invalid,
    NotFound,
    OutcomeUnknown,
    Outdated,
    PermanentError,
    Stale,
    TransientError,
    Unavailable,
)  # fmt: skip

MEDIA_TYPE = "application/problem+json"
MAX_ERRORS = MOST_TOLD
"""Fields that one answer names; a person corrects those first."""
MAX_FIELD, MAX_PROBLEM, MAX_DETAIL = 200, 500, 4000
"""Characters of a field's path, of what is wrong with it, and of a `detail`: parts of the request may be in them."""

ONE, MANY = "one", "many"
"""How pydantic names the forms of a body that is one object or a list of them, in the place of an error."""

MOVED = "changewire-moved"
"""A header, in lower case, of an answer that says that the watcher is not owned here: `forwarding.py` looks again."""
RETRY_AFTER = {"Retry-After": "5"}
"""With each 503: seconds after which a client may ask again."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of problem: its HTTP status, its title, and the end of its `type`."""

    status: int
    title: str
    type: str


INTERNAL = Kind(500, "Internal Server Error", "internal")

KINDS: dict[type[ChangewireError], Kind] = {
    Invalid: Kind(422, "Invalid", "invalid"),
    NotFound: Kind(404, "Not found", "not-found"),
    Conflict: Kind(409, "Conflict", "conflict"),
    Outdated: Kind(412, "Outdated", "outdated"),
    Elsewhere: Kind(503, "Elsewhere", "elsewhere"),
    Unavailable: Kind(503, "Unavailable", "unavailable"),
    TransientError: Kind(503, "Unavailable", "unavailable"),
    # These are for a watcher's task. A request meets one only where the service has a fault.
    PermanentError: INTERNAL,
    CollectionMoved: INTERNAL,
    OutcomeUnknown: INTERNAL,
    Stale: INTERNAL,
    Fenced: INTERNAL,
}
"""What each branch of the tree in `domain/errors.py` answers. A class without a row is answered as its base class."""


def kind_of(error: type[Exception]) -> Kind:
    """Return the row of the class, or of its nearest base class; `INTERNAL` where there is none."""
    return next((KINDS[each] for each in error.__mro__ if each in KINDS), INTERNAL)


SCHEMAS: dict[str, Any] = {
    "FieldProblem": {
        "type": "object",
        "title": "FieldProblem",
        "description": "One thing wrong with a request.",
        "required": ["field", "detail"],
        "properties": {
            "field": {
                "type": "string",
                "description": "Dotted path of the field; of one in a list of watchers `[3].sink.stream`.",
                "examples": ["sink.stream"],
            },
            "detail": {
                "type": "string",
                "description": "What is wrong, as a sentence that begins with the field.",
                "examples": ["is empty"],
            },
            "watcher": {
                "type": "string",
                "description": "With several watchers in the request: the name of the one with the field.",
                "examples": ["orders"],
            },
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
                "description": "With status 422: all wrong fields, at most 50. With 409: the fields with which the "
                "conflict can be resolved, where there are any.",
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
    409: "The request conflicts with the current state; `detail` says what to do, and `errors` with which fields.",
    412: "`If-Match` does not name the watcher's current revision; read the watcher again.",
    413: "The body is larger than 1 MiB, or holds more than 20000 values.",
    415: "The body is not sent as application/json.",
    422: "The request is not valid; `errors` names the fields.",
    503: "A server that this call needs, or the instance that runs the watcher, cannot be reached.",
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
        listed = [_shown(each) for each in islice(errors, MAX_ERRORS)]
        if listed:
            self.body["errors"] = listed

    def response(self) -> Response:
        text = json.dumps(self.body, ensure_ascii=False, separators=(",", ":"))
        content = text.encode("utf-8", "replace")  # half of a surrogate pair has no UTF-8
        return Response(content, self.status, {"Cache-Control": "no-store", **self.headers}, MEDIA_TYPE)


def _shown(problem: FieldProblem) -> dict[str, str]:
    shown = {"field": short(problem.field, MAX_FIELD), "detail": short(problem.problem, MAX_PROBLEM)}
    return shown if problem.watcher is None else shown | {"watcher": short(problem.watcher, MAX_FIELD)}


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


def invalid(problems: Iterable[FieldProblem]) -> Problem:
    """422 with its list of fields."""
    listed = tuple(problems)
    said = [f"{short(each.field, MAX_FIELD)} {short(each.problem, MAX_PROBLEM)}" for each in listed[:MAX_ERRORS]]
    if len(listed) > MAX_ERRORS:
        said.append(f"and {len(listed) - MAX_ERRORS} more")
    kind = KINDS[Invalid]
    return Problem(kind.status, kind.title, "; ".join(said), kind=kind.type, errors=listed)
