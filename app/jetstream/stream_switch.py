"""A stream's settings switched over: to Changewire's, or back to those that mongodb-nats-connector starts with.

Only the settings that Changewire itself switches on are changed. The stream of a running watcher is prepared by
`provisioning.py`.
"""

from dataclasses import dataclass
from typing import Any, Final

from app.config.settings import Settings
from app.domain.errors import Conflict
from app.domain.watcher import Sink, Source, StreamSettings, Watcher
from app.jetstream.connection import NatsConnection
from app.jetstream.errors import NAME_IN_USE, ApiError, refusals
from app.jetstream.options import nats_options
from app.jetstream.stream_api import StreamApi
from app.jetstream.streams import SWITCHES, new_config

CONNECT_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Switched:
    """The settings that were changed, and those that stay off because the stream's server is too old for them."""

    changed: dict[str, bool]
    unknown: list[str]
    version: str


async def switch(settings: Settings, name: str, to: StreamSettings) -> Switched:
    """Switch a stream over, and return what was changed.

    Raises Conflict where the stream does not have these settings afterwards, or mongodb-nats-connector would still
    refuse it; StreamRefused for a stream that does not exist; SinkUnavailable, NotAuthorised.
    """
    connection = NatsConnection(nats_options(settings))
    connection.start()
    try:
        await connection.ready(CONNECT_SECONDS)
        with refusals(name):
            return await _switch(StreamApi(connection), name, to)
    finally:
        await connection.close()


async def _switch(api: StreamApi, name: str, to: StreamSettings) -> Switched:
    stream = await api.info(name)
    unknown = [setting for setting, since in SWITCHES.items() if stream.server_version < since]
    if to == "connector":
        wanted = dict.fromkeys(SWITCHES, False)
    else:
        wanted = {setting: True for setting in SWITCHES if setting not in unknown}
        if stream.replicas > 1:
            wanted.pop("allow_batched", None)  # it is not used there
    changed = {setting: value for setting, value in wanted.items() if bool(stream.config.get(setting)) is not value}
    if changed:
        stream = await api.update({**stream.config, **changed})
        left = [setting for setting, value in changed.items() if bool(stream.config.get(setting)) is not value]
        if left:
            raise Conflict(f"the NATS server did not switch {', '.join(left)} in the stream {name}")
    if to == "connector":
        await _try_as_connector(api, name, stream.config)
    return Switched(changed, [] if to == "connector" else unknown, stream.version)


async def _try_as_connector(api: StreamApi, name: str, config: dict[str, Any]) -> None:
    """Ask for the stream as mongodb-nats-connector does at its start: it stays as it is, where its settings agree."""
    asked = new_config(_watcher(name, "connector"))
    try:
        await api.create(asked)
    except ApiError as error:
        if error.code != NAME_IN_USE:
            raise
        others = [
            f"{key} is {config.get(key)}, not {value}" for key, value in asked.items() if config.get(key) != value
        ]
        raise Conflict(
            f"mongodb-nats-connector would still refuse the stream {name}, since it has other settings that Changewire "
            f"did not make: {'; '.join(others) or error}. Change them with: nats stream edit {name}"
        ) from error


def _watcher(name: str, stream_settings: StreamSettings) -> Watcher:
    return Watcher(name, Source("any", "any"), Sink(name, stream_settings=stream_settings))
