"""The stream that holds the dead letters of another one: looked at, found or created.

It takes one message per subject and refuses a second (`discard_new_per_subject`): see `dead_letter_queue.py`.
"""

from typing import Any

import structlog

from app.domain.buckets import bucket_of, bucket_problem
from app.domain.dead_letters import letters_of, letters_space
from app.domain.errors import FieldProblem, Invalid, StreamRefused, StreamUnsuitable
from app.domain.subjects import covers
from app.domain.watcher import Watcher
from app.jetstream.errors import NAME_IN_USE, NEEDS_SIZE, SUBJECTS_OVERLAP, ApiError
from app.jetstream.stream_api import StreamApi, unless_missing
from app.jetstream.streams import Stream

log = structlog.get_logger(__name__)


async def check(api: StreamApi, source: str) -> None:
    """Look whether the dead letters of the stream `source` could be kept, changing nothing.

    Raises StreamUnsuitable, Invalid, ApiError, SinkUnavailable, NotAuthorised."""
    name, subjects = letters_of(source), letters_space(source)
    problem = bucket_problem(bucket_of(name))
    if problem is not None:
        raise Invalid(problems=(FieldProblem("sink.stream", f"{problem}, which dead letters need"),))
    stream = await unless_missing(api.info(name))
    found = None if stream is None else fault(stream, subjects)
    if found is not None:
        raise StreamUnsuitable(found)
    others = [other for other in await api.names(subjects) if other != name]
    if others:
        raise StreamUnsuitable(
            f"the stream {name} for dead letters cannot be created: {', '.join(others)} already takes "
            f"subjects of {subjects}; choose another sink.stream, or another sink.oversize than dead_letter"
        )


async def provide(api: StreamApi, watcher: Watcher) -> Stream:
    """Find the stream for a watcher's dead letters, or create it.

    Raises StreamRefused where it is not made for them, SinkUnavailable, NotAuthorised, ApiError."""
    source = watcher.sink.stream
    stream = await unless_missing(api.info(letters_of(source))) or await _create(api, watcher)
    found = fault(stream, letters_space(source))
    if found is not None:
        raise StreamRefused(found)
    return stream


async def _create(api: StreamApi, watcher: Watcher) -> Stream:
    source = await api.info(watcher.sink.stream)
    config = new_config(source)
    try:
        try:
            stream = await api.create(config)
        except ApiError as error:
            if error.code != NEEDS_SIZE or watcher.sink.max_bytes < 0:
                raise
            stream = await api.create({**config, "max_bytes": watcher.sink.max_bytes})
    except ApiError as error:
        if error.code == NAME_IN_USE:  # another instance was faster
            return await api.info(config["name"])
        if error.code == SUBJECTS_OVERLAP:
            raise StreamRefused(
                f"the stream {config['name']} for dead letters cannot be created: another stream takes subjects of "
                f"{letters_space(source.name)}"
            ) from error
        raise
    log.info("dead_letter_stream_created", watcher=watcher.name, stream=stream.name)
    return stream


def new_config(source: Stream) -> dict[str, Any]:
    """Return the configuration of the stream that is created for the dead letters of another."""
    return {
        "name": letters_of(source.name),
        "description": f"Changewire: changes that could not be published to {source.name}",
        "subjects": [letters_space(source.name)],
        "retention": "limits",
        "storage": "file",
        "discard": "new",
        "discard_new_per_subject": True,
        "max_msgs_per_subject": 1,
        "num_replicas": int(source.config.get("num_replicas", 1)),
        "max_bytes": -1,
        "allow_direct": True,
    }


def fault(stream: Stream, subjects: str) -> str | None:
    """Return why a stream cannot hold dead letters under these subjects; None where it can."""
    config, name = stream.config, stream.name
    if config.get("sealed"):
        return f"the stream {name}, for dead letters, is sealed"
    if config.get("mirror") or not any(covers(subject, subjects) for subject in stream.subjects):
        return f"the stream {name} exists and does not take the subjects of dead letters, {subjects}"
    if config.get("no_ack"):
        return f"the stream {name}, for dead letters, does not acknowledge messages (no_ack)"
    if config.get("retention", "limits") != "limits":
        return f"the stream {name} has the retention {config['retention']}: a dead letter would not stay; use limits"
    if not (
        config.get("discard") == "new"
        and config.get("discard_new_per_subject")
        and config.get("max_msgs_per_subject") == 1
    ):
        return (
            f"the stream {name} exists and is not made for dead letters: it needs discard `new`, "
            "discard_new_per_subject, and max_msgs_per_subject 1"
        )
    return None
