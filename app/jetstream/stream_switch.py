"""A stream's settings switched over: to Changewire's, or back to those that mongodb-nats-connector starts with.

Only the settings that Changewire itself switches on are changed. The stream of a running watcher is prepared by
`provisioning.py`.
"""

from typing import Any, Final

from app.config.settings import Settings
from app.domain.errors import Conflict
from app.domain.watcher import Sink, Source, StreamSettings, Watcher
from app.jetstream.connection import NatsConnection
from app.jetstream.errors import NAME_IN_USE, ApiError, refusals
from app.jetstream.options import nats_options
from app.jetstream.stream_api import StreamApi
from app.jetstream.streams import new_config, switches

CONNECT_SECONDS: Final = 10.0


async def switch(settings: Settings, name: str, to: StreamSettings) -> dict[str, bool]:
    """Switch a stream over, and return the settings that were changed.

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


async def _switch(api: StreamApi, name: str, to: StreamSettings) -> dict[str, bool]:
    stream = await api.info(name)
    wanted = dict.fromkeys(switches(_watcher(name, "changewire")), to == "changewire")
    changed = {setting: value for setting, value in wanted.items() if bool(stream.config.get(setting)) is not value}
    if changed:
        stream = await api.update({**stream.config, **changed})
        left = [setting for setting, value in changed.items() if bool(stream.config.get(setting)) is not value]
        if left:
            raise Conflict(f"the NATS server does not know {', '.join(left)}; it needs version 2.12 or later")
    if to == "connector":
        await _try_as_connector(api, name, stream.config)
    return changed


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
