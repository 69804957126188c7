"""A watcher's stream made ready: found or created, with what makes it faster switched on where that is allowed.

Of a stream that exists nothing else is changed, and nothing at all where it keeps the settings of
mongodb-nats-connector.
"""

import asyncio
from dataclasses import dataclass
from typing import Any, Final

import structlog

from app.domain.errors import NotAuthorised, SinkUnavailable, StreamRefused, StreamUnsuitable
from app.domain.watcher import Watcher
from app.jetstream.errors import NAME_IN_USE, SUBJECTS_OVERLAP, ApiError
from app.jetstream.stream_api import StreamApi, unless_missing
from app.jetstream.streams import Stream, as_switched, assess, new_config, switches

SEALED: Final = "the stream {} is sealed: it takes no messages any more"
SUBJECTS_TAKEN: Final = (
    "cannot be created: {} already takes subjects of {}; set sink.stream to that stream, or choose another sink.subject"
)
AGAIN_SECONDS: Final = 60.0
"""For how long a stream that was refused a setting is not asked to be switched again: a watcher in trouble is opened
every few seconds."""

log = structlog.get_logger(__name__)


class Refusals:
    """Which streams of an account could not be switched over, and why. What is remembered holds for a stream with the
    same settings; it is asked again after `AGAIN_SECONDS`."""

    def __init__(self) -> None:
        self._known: dict[str, _Refusal] = {}

    def reason(self, stream: Stream) -> str | None:
        """Return why the stream could not be switched over; None where it was not tried with these settings."""
        known = self._known.get(stream.name)
        return known.reason if known is not None and known.settings == _settings(stream) else None

    def recent(self, stream: Stream) -> bool:
        """Whether that was so recently that it need not be tried again."""
        return self.reason(stream) is not None and _now() < self._known[stream.name].until

    def remember(self, stream: Stream, reason: str) -> None:
        self._known[stream.name] = _Refusal(_settings(stream), reason, _now() + AGAIN_SECONDS)

    def forget(self, name: str) -> None:
        self._known.pop(name, None)


@dataclass(frozen=True, slots=True)
class _Refusal:
    settings: dict[str, Any]
    reason: str
    until: float


async def provide(api: StreamApi, watcher: Watcher, refusals: Refusals, *, may_create: bool) -> Stream:
    """Return the watcher's stream, ready to be published to.

    Raises StreamRefused (absent while `may_create` is false, or sealed), StreamUnsuitable, SinkUnavailable,
    NotAuthorised, ApiError."""
    stream = await unless_missing(api.look(watcher)) or await _create(api, watcher, may_create=may_create)
    if stream.config.get("sealed"):
        raise StreamRefused(SEALED.format(stream.name))
    assess(as_switched(stream, watcher), watcher)
    if _lacking(stream, watcher) and not refusals.recent(stream):
        stream = await _switch_on(api, watcher, stream, refusals)
    return stream


async def _create(api: StreamApi, watcher: Watcher, *, may_create: bool) -> Stream:
    name = watcher.sink.stream
    if not may_create:
        raise StreamRefused(f"the stream {name} does not exist")
    try:
        stream = await api.create(new_config(watcher))
    except ApiError as error:
        if error.code == NAME_IN_USE:  # another instance was faster
            return await api.look(watcher)
        if error.code == SUBJECTS_OVERLAP:
            others = ", ".join(await api.names(watcher.space)) or "another stream"
            raise StreamUnsuitable(f"the stream {name} {SUBJECTS_TAKEN.format(others, watcher.space)}") from error
        raise
    log.info("stream_created", watcher=watcher.name, stream=name, subjects=stream.subjects)
    return stream


async def _switch_on(api: StreamApi, watcher: Watcher, stream: Stream, refusals: Refusals) -> Stream:
    """Switch on what the stream lacks, as far as account and server allow: all of it, or else what passes alone."""
    lacking, reason = _lacking(stream, watcher), "the server took it and does not have it"
    for wanted in (lacking, *([name] for name in lacking if len(lacking) > 1)):
        try:
            stream = await api.update({**stream.config, **dict.fromkeys(wanted, True)})
        except (ApiError, NotAuthorised, SinkUnavailable) as error:
            reason = str(error)
            log.warning("stream_not_updated", stream=stream.name, wanted=wanted, reason=reason)
            if isinstance(error, SinkUnavailable):
                return await api.look(watcher)  # whether it was switched is not known
            if isinstance(error, NotAuthorised):
                break
        else:
            if wanted is lacking:
                break
    if _lacking(stream, watcher):
        refusals.remember(stream, reason)
    else:
        refusals.forget(stream.name)
    return stream


def _lacking(stream: Stream, watcher: Watcher) -> list[str]:
    return [name for name in switches(watcher, stream) if not stream.config.get(name)]


def _settings(stream: Stream) -> dict[str, Any]:
    return {name: value for name, value in stream.config.items() if name != "metadata"}


def _now() -> float:
    return asyncio.get_running_loop().time()
