"""A watcher's stream made ready: found or created, with atomic batches and direct reads switched on where allowed.

Of a stream that exists nothing else is changed, and nothing at all where it keeps the settings of
mongodb-nats-connector.
"""

from typing import Final

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

log = structlog.get_logger(__name__)


async def provide(api: StreamApi, watcher: Watcher, *, may_create: bool) -> Stream:
    """Return the watcher's stream, ready to be published to.

    Raises StreamRefused (absent while `may_create` is false, or sealed), StreamUnsuitable, SinkUnavailable,
    NotAuthorised, ApiError."""
    stream = await unless_missing(api.look(watcher)) or await _create(api, watcher, may_create=may_create)
    if stream.config.get("sealed"):
        raise StreamRefused(SEALED.format(stream.name))
    assess(as_switched(stream, watcher), watcher)
    if any(not stream.config.get(name) for name in switches(watcher, stream)):
        stream = await _switch_on(api, watcher, stream)
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


async def _switch_on(api: StreamApi, watcher: Watcher, stream: Stream) -> Stream:
    """Switch on what the stream lacks, as far as account and server allow: all of it, or else atomic batches alone."""
    for wanted in (switches(watcher, stream), {"allow_atomic": True}):
        if all(stream.config.get(name) for name in wanted):
            break
        try:
            return await api.update({**stream.config, **wanted})
        except (ApiError, NotAuthorised, SinkUnavailable) as error:
            log.warning("stream_not_updated", stream=stream.name, wanted=sorted(wanted), reason=str(error))
            if not isinstance(error, ApiError):
                break
    return await api.look(watcher)
