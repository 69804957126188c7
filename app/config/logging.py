"""How the service logs: events with fields, as JSON lines or for people.

A line that a library writes is the event `library_message` with the text as a field, so that every event is one of the
catalogue (`log_events`). A warning or an error says in `hint` what to do: the catalogue's advice, unless the line has
one of its own. Every line passes a processor that takes credentials out, whichever library wrote it. `redact` does the
same for a text that goes elsewhere.
"""

import logging
import re
import sys
import time
from collections.abc import Iterable
from typing import Any, Literal, TextIO

import structlog
from structlog.typing import EventDict, Processor

from app.config.log_events import EVENTS
from app.domain.plain import plain

REDACTED = "***"
_SHORTEST_SECRET = 4

# Greedy, so that an unescaped @ in a password is covered; up to the next "://", so that hosts before it stay readable.
_URI_CREDENTIALS = re.compile(r"(://)(?:(?!://)[^\s\"'<>])*@")
_BEARER = re.compile(r"(?i)\b((?:bearer|basic)\s+)[A-Za-z0-9._~+/=!-]+")
_ASSIGNED = re.compile(r"(?i)((?:password|passwd|session_token|api_token|secret)[\"']?\s*[=:]\s*[\"']?)[^\s&,\"';]+")
_SECRET_KEYS = frozenset(
    {"authorization", "proxy-authorization", "password", "api_token", "nats_token", "secret", "seed"}
)

_OF_LINES = frozenset({"exception", "stack"})

# Chatty below warning, and nothing an operator can act on.
_QUIET = ("pymongo", "nats", "asyncio", "watchfiles")
_SERIOUS = frozenset({"warning", "error", "critical"})
_FIRST = ("time", "level", "event")
"""What a line begins with, so that people find it."""
REPEATED_SECONDS = 60.0
"""The least time between two equal messages of uvicorn: clients cause them, as often as they like."""


def configure(
    level: str = "info",
    log_format: Literal["json", "console"] | None = None,
    *,
    secrets: Iterable[str] = (),
    stream: TextIO | None = None,
) -> None:
    """Set up structlog and the standard library's logging; may be called again.

    `log_format` None is console on a terminal and json elsewhere. `secrets` are values that are taken out wherever
    they appear. `stream` is standard output unless given.
    """
    out = stream or sys.stdout
    console = log_format == "console" or (log_format is None and out.isatty())
    number = logging.getLevelNamesMapping()[level.upper()]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        _add_advice,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        Redactor(secrets),
    ]
    handler = logging.StreamHandler(out)
    foreign: list[Processor] = [structlog.stdlib.ExtraAdder(), _as_event, *shared]
    handler.setFormatter(_formatter(foreign, console=console, colors=out.isatty()))
    _route(handler, number)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


def _formatter(foreign: list[Processor], *, console: bool, colors: bool) -> logging.Formatter:
    """Return what makes a line of an event, or with `foreign` of a record of the standard library's."""
    renderer: Processor = _plain_json
    if console:
        renderer = structlog.dev.ConsoleRenderer(
            colors=colors, timestamp_key="time", exception_formatter=structlog.dev.plain_traceback
        )
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=foreign,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            _plain_values if console else _in_order,
            renderer,
        ],
    )


def _route(handler: logging.Handler, level: int) -> None:
    """Let the standard library's loggers, and through them all vendors', write to this handler alone."""
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        uvicorn = logging.getLogger(name)
        uvicorn.handlers, uvicorn.propagate, uvicorn.filters = [], True, []
        # Below that it tells of its own life. What matters of it is said as `listening`, `stopping` and `stopped`.
        uvicorn.setLevel(level if level <= logging.DEBUG else max(level, logging.WARNING))
    logging.getLogger("uvicorn.error").addFilter(Seldom())


class Seldom(logging.Filter):
    """Lets a warning pass again after a minute only."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        message, now = str(record.msg), time.monotonic()  # without its arguments: there are few of these
        if record.levelno != logging.WARNING:
            return True
        if now - self._said.get(message, float("-inf")) < REPEATED_SECONDS:
            return False
        self._said[message] = now
        return True


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """Return `text` without credentials in URIs, Authorization values, passwords in assignments, and `secrets`."""
    for secret in secrets:
        if len(secret) >= _SHORTEST_SECRET:  # a shorter one would tear ordinary words apart
            text = text.replace(secret, REDACTED)
    if "://" in text and "@" in text:
        text = _URI_CREDENTIALS.sub(rf"\1{REDACTED}@", text)
    text = _BEARER.sub(rf"\1{REDACTED}", text)
    return _ASSIGNED.sub(rf"\1{REDACTED}", text)


class Redactor:
    """The processor: applies `redact` to every text in an event, at any depth."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        # The longest first: one secret may be part of another.
        self._secrets = tuple(sorted(secrets, key=len, reverse=True))

    def __call__(self, _logger: Any, _method: str, event: EventDict) -> EventDict:
        return {key: self._clean(key, value) for key, value in event.items()}

    def _clean(self, key: object, value: Any, depth: int = 0) -> Any:
        if isinstance(key, str) and key.lower() in _SECRET_KEYS:
            return REDACTED
        if isinstance(value, str):
            return redact(value, self._secrets)
        if isinstance(value, (bool, int, float, type(None))) or (isinstance(key, str) and key.startswith("_")):
            return value
        if depth < 4:
            if isinstance(value, dict):
                return {inner: self._clean(inner, each, depth + 1) for inner, each in value.items()}
            if isinstance(value, (list, tuple)):
                return [self._clean(None, each, depth + 1) for each in value]
        return redact(str(value), self._secrets)


_render_json = structlog.processors.JSONRenderer(ensure_ascii=False)


def _plain_json(logger: Any, method: str, event: EventDict) -> str:
    """One object a line. What JSON leaves as it is, such as C1 controls, is escaped as well, which means the same."""
    return plain(str(_render_json(logger, method, event)))


def _plain_values(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """For people: every text without what a terminal would take for an order; a traceback keeps its lines."""

    def shown(key: str, value: Any) -> Any:
        if isinstance(value, str):
            return plain(value, keep="\n\t" if key in _OF_LINES else "")
        return value if isinstance(value, bool | int | float | None) else plain(repr(value))

    return {plain(key): shown(key, value) for key, value in event.items()}


def _as_event(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """A library's text becomes a field. uvicorn attaches a coloured copy of it."""
    event.pop("color_message", None)
    return {**event, "event": "library_message", "message": event["event"]}


def _add_advice(_logger: Any, _method: str, event: EventDict) -> EventDict:
    if event["level"] in _SERIOUS and "hint" not in event and (known := EVENTS.get(event["event"])) is not None:
        event["hint"] = known.advice
    return event


def _in_order(_logger: Any, _method: str, event: EventDict) -> EventDict:
    return {**{name: event[name] for name in _FIRST if name in event}, **event}
