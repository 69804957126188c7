"""Whether NATS would create a watcher's stream, found out by creating one like it for a moment.

The server has no dry run, and tells only a part of its limits: how much storage is left, or whether a cluster has room
for the replicas, shows only in its answer to a request. So a stream with the settings that are asked for, but a name
and a subject that nothing uses, is created and removed at once. Nothing is tried where nothing can be refused (default
settings in an account without limits), or where the account could not remove what it made.

Streams that exist are not tried: `streams.assess` says whether they can carry the watcher.
"""

import secrets
from contextlib import suppress
from typing import Any, Final

import structlog

from app.domain.errors import FieldProblem, Invalid, NotAuthorised, SinkUnavailable
from app.domain.watcher import Sink, Watcher
from app.jetstream.errors import ApiError, field_of
from app.jetstream.stream_api import StreamApi
from app.jetstream.streams import SWITCHES, Stream, new_config

_TRIAL_BYTES: Final = 1024
"""Some accounts demand a limit, and some have little room."""

log = structlog.get_logger(__name__)


async def try_stream(api: StreamApi, watcher: Watcher) -> None:
    """Raise Invalid, on the field, where the server would refuse to create the watcher's stream as it is configured.

    Raises SinkUnavailable, and ApiError for an answer that says nothing about the settings.
    """
    config = new_config(watcher)
    with suppress(NotAuthorised):  # may create streams of certain names only: this says nothing about the watcher's
        if _plain(watcher.sink) and not await _limited(api):
            return
        try:
            await _try(api, config)
        except ApiError as error:
            raise _refusal(error, watcher) from error


async def try_modes(api: StreamApi) -> frozenset[str] | None:
    """Return which of `SWITCHES` this server has, by what it echoes of a stream's settings. None where the account may
    not try.

    Raises SinkUnavailable and ApiError.
    """
    config = {"storage": "file", "num_replicas": 1, "max_bytes": _TRIAL_BYTES, **dict.fromkeys(SWITCHES, True)}
    try:
        stream = await _try(api, config)
    except NotAuthorised:
        return None
    return frozenset(name for name in SWITCHES if stream.config.get(name))


async def _try(api: StreamApi, config: dict[str, Any]) -> Stream:
    """Create a stream with these settings under a name of its own, and remove it.

    Removing comes first: without the right to that, nothing is created."""
    name = f"CHANGEWIRE_TRIAL_{secrets.token_hex(8)}"
    await _remove(api, name)
    try:
        stream = await api.create({**config, "name": name, "subjects": [f"_CHANGEWIRE.TRIAL.{name}"]})
    except (ApiError, NotAuthorised):
        raise
    except BaseException:
        await _tidy(api, name)  # whether it was created is not known
        raise
    await _tidy(api, name)
    return stream


async def _tidy(api: StreamApi, name: str) -> None:
    try:
        await _remove(api, name)
    except (ApiError, NotAuthorised, SinkUnavailable) as error:
        log.warning("trial_stream_left_behind", stream=name, reason=str(error))


async def _remove(api: StreamApi, name: str) -> None:
    """Delete a stream, which need not exist. Raises NotAuthorised, SinkUnavailable, ApiError."""
    try:
        await api.delete(name)
    except ApiError as error:
        if error.status != 404:
            raise


async def _limited(api: StreamApi) -> bool:
    """Whether the account has limits that can refuse a stream without settings of its own."""
    account = await api.call("INFO")
    limits = account.get("limits") or {}
    return bool(account.get("tiers") or limits.get("max_bytes_required") or limits.get("max_streams", -1) >= 0)


def _plain(sink: Sink) -> bool:
    default = Sink()
    names = ("replicas", "max_age_seconds", "max_bytes", "duplicate_window_seconds")
    return all(getattr(sink, name) == getattr(default, name) for name in names)


def _refusal(error: ApiError, watcher: Watcher) -> Exception:
    field = field_of(error)
    if field is None:
        return error
    problem = f"cannot be as asked for: NATS refuses to create the stream {watcher.sink.stream}: {error} ({error.code})"
    return Invalid(problems=(FieldProblem(field, problem),))
