"""What the shapes have in common: a body, a query, an answer; and how an answer is written as JSON.

An answer is made from the domain's values by its model's `of`. What this process knows itself (states, lags, errors) is
validated by that. What comes from a store or a server (a watcher's definition, a stream's settings, a dead letter) is
taken as it is (`model_construct`): a watcher stored by an earlier version must never turn a GET into an error. Times
are ISO 8601 in UTC, with milliseconds.
"""

from datetime import datetime, timedelta
from typing import Annotated, Any, overload

import orjson
import pydantic_core
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from app.config.logging import redact

MAX_SEQUENCE = 2**63 - 1
MAX_ITEMS = 200
"""Items of a list, or fields of an object, that are looked at one by one: what is wrong with each is an error."""
MAX_TEXT = 8192
"""Characters of a text outside of a pipeline. What each field takes is less, and its own problem says how much."""

TOKEN_EXAMPLE = "8265920F90000000012B022C0100296E5A10046F6E65"
TIMESTAMP_EXAMPLE = "2026-01-01T00:00:00Z"

_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001
Time = Annotated[str, Field(json_schema_extra={"format": "date-time"}, examples=[TIMESTAMP_EXAMPLE])]
Token = Annotated[str, Field(examples=[TOKEN_EXAMPLE])]


class Shape(BaseModel):
    """What every shape has in common: nothing unknown, nothing converted. Field docstrings are the descriptions."""

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _few_fields(cls, given: Any) -> Any:
        """Count first: each unknown field would be an error."""
        if isinstance(given, dict) and len(given) > MAX_ITEMS:
            raise ValueError(f"has more than {MAX_ITEMS} fields")
        return given

    @field_validator("*", mode="before")
    @classmethod
    def _of_bounded_size(cls, value: Any) -> Any:
        """Count first: each wrong item would be an error, and some checks take time with each character."""
        if isinstance(value, list) and len(value) > MAX_ITEMS:
            raise ValueError(f"has more than {MAX_ITEMS} items")
        if isinstance(value, str) and len(value) > MAX_TEXT:
            raise ValueError(f"is longer than {MAX_TEXT} characters")
        return value


class Query(BaseModel):
    """What every query has in common: nothing unknown."""

    model_config = ConfigDict(extra="forbid")


class Answer(BaseModel):
    """What every answer has in common. Field docstrings are the descriptions."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class Brief:
    """Mixed into an answer that leaves out what is None."""


class Unparsed:
    """Mixed into an answer with a field that is JSON already (`orjson.Fragment`), and goes out as it is."""


def to_json(answer: object, *, without: set[str] | None = None) -> bytes:
    """Write an answer as JSON: one model, perhaps without some of its fields, or a list or an object of models. What is
    JSON already is that."""
    if isinstance(answer, bytes):
        return answer
    if isinstance(answer, Unparsed):
        return orjson.dumps(vars(answer))  # its other fields are plain values
    return pydantic_core.to_json(answer, exclude=without, exclude_none=isinstance(answer, Brief), inf_nan_mode="null")


@overload
def moment(seconds: float) -> str: ...
@overload
def moment(seconds: None) -> None: ...
@overload
def moment(seconds: float | None) -> str | None: ...
def moment(seconds: float | None) -> str | None:
    """Seconds since 1970 as ISO 8601 in UTC; None stays None."""
    if seconds is None:
        return None
    # Without a time zone, which would take most of the time: a list of watchers has several of these each.
    return (_EPOCH + timedelta(0, seconds)).isoformat("T", "milliseconds") + "Z"


@overload
def shown(text: str) -> str: ...
@overload
def shown(text: str | None) -> str | None: ...
def shown(text: str | None) -> str | None:
    """A reason as anyone may see it: it holds the servers' words, which may hold credentials."""
    return None if text is None else redact(text)
