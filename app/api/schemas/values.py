"""Values of a request that are checked one by one: a pipeline, a time, a resume token, a start position.

The caller gets a sentence about what is wrong, without the value. What can be told only together with other fields, or
by asking a server, is checked in `domain/watcher.py` and the registry.
"""

import math
from typing import Annotated, Any

import orjson
from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, WithJsonSchema

from app.api.schemas.base import TIMESTAMP_EXAMPLE, TOKEN_EXAMPLE
from app.domain.text import HALF, is_text
from app.domain.tokens import is_token
from app.domain.watcher import start_from_document

MAX_DEPTH = 100
"""Levels of nesting that MongoDB takes in a document."""
MAX_PIPELINE = 256 * 1024
"""Bytes of a pipeline as JSON. It is in every list of watchers, and in the memory of every instance."""
INT64 = 2**63


def not_empty(name: str | None) -> str | None:
    """Refuse an empty name of a database or collection, which is a mistake, where none at all is a wish."""
    if name == "":
        raise ValueError("is empty; leave it out to watch all of them")
    return name


def _storable(value: Any) -> Any:
    """Refuse what JSON can say and BSON or UTF-8 cannot. Without recursion, since it may be nested deeply."""
    waiting: list[tuple[Any, int]] = [(value, 1)]
    while waiting:
        each, depth = waiting.pop()
        if isinstance(each, str):
            _encodable(each)
        elif isinstance(each, bool) or each is None:
            continue
        elif isinstance(each, int) and not -INT64 <= each < INT64:
            raise ValueError("holds a number beyond 64 bits, which MongoDB cannot store")
        elif isinstance(each, float) and not math.isfinite(each):
            raise ValueError("holds NaN or Infinity, which JSON does not have")
        elif isinstance(each, (dict, list)):
            if depth > MAX_DEPTH:
                raise ValueError(f"is nested deeper than {MAX_DEPTH} levels, which MongoDB does not accept")
            if isinstance(each, dict):
                for key in each:
                    if "\0" in _encodable(key):
                        raise ValueError("has a key with a NUL character, which MongoDB cannot store")
            waiting += [(inner, depth + 1) for inner in (each.values() if isinstance(each, dict) else each)]
    size = len(orjson.dumps(value))
    if size > MAX_PIPELINE:
        raise ValueError(f"has {size} bytes as JSON; the maximum is {MAX_PIPELINE}")
    return value


def _encodable(text: str) -> str:
    if not is_text(text):
        raise ValueError(HALF)
    return text


def _plain(number: float) -> float:
    return int(number) if float(number).is_integer() else number


def _start_at(value: Any) -> Any:
    """Check `latest`, `earliest`, `{"timestamp": …}` or `{"token": …}`, with a sentence in place of a union's babel."""
    wanted = f'must be latest, earliest, {{"timestamp": "{TIMESTAMP_EXAMPLE}"}} or {{"token": "82…"}}'
    if isinstance(value, dict):
        match value:
            case {"timestamp": str(inner)} if len(value) == 1:
                return {"timestamp": _timestamp(inner)}
            case {"token": str(inner)} if len(value) == 1:
                return {"token": _token(inner)}
    if value not in ("latest", "earliest"):
        raise ValueError(wanted)
    return value


def _timestamp(text: str) -> str:
    try:
        moment = start_from_document({"timestamp": text}).value
    except (ValueError, OverflowError) as error:
        said = f": {error}" if "offset" in str(error) else ""
        raise ValueError(f"is not a time in ISO 8601{said}. Example: {TIMESTAMP_EXAMPLE}") from None
    if not 0 <= float(moment or 0) < 2**32:
        raise ValueError("is outside the range of MongoDB's clock (1970 to 2106)")
    return text


def _token(text: str) -> str:
    if not is_token(text):
        raise ValueError(
            "is not a resume token: the hexadecimal _data string that MongoDB issues, which starts with 82"
        )
    return text


_TOKEN_PATTERN = "^82([0-9A-Fa-f]{2}){8,}$"
_TIME_SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["timestamp"],
    "properties": {"timestamp": {"type": "string", "format": "date-time"}},
}
_TOKEN_SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["token"],
    "properties": {"token": {"type": "string", "pattern": _TOKEN_PATTERN}},
}

Pipeline = Annotated[list[Annotated[dict[str, Any], Field(min_length=1)]], AfterValidator(_storable)]
Filter = Annotated[dict[str, Any], AfterValidator(_storable)]
StartAt = Annotated[
    Any,
    BeforeValidator(_start_at),
    WithJsonSchema({"anyOf": [{"type": "string", "enum": ["latest", "earliest"]}, _TIME_SCHEMA, _TOKEN_SCHEMA]}),
]
ResumeToken = Annotated[
    str,
    AfterValidator(_token),
    Field(examples=[TOKEN_EXAMPLE], json_schema_extra={"pattern": _TOKEN_PATTERN}),
]
Timestamp = Annotated[
    str,
    AfterValidator(_timestamp),
    Field(examples=[TIMESTAMP_EXAMPLE], json_schema_extra={"format": "date-time"}),
]
Seconds = Annotated[float, Field(ge=0, le=9e9), PlainSerializer(_plain, return_type=Any, when_used="json")]
"""Answered as a person writes it: 3600, not 3600.0."""
