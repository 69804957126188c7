"""Looking at a watcher's stream: `ports.StreamReader`.

By single requests on the connection that is there anyway, and never by a consumer: it would be one more of those that
are shown, an account need not be allowed to make one, and what it delivers comes whether there is time for it or not.
"""

from base64 import b64decode
from datetime import datetime
from typing import Any, Final

from app.domain.errors import NotAuthorised
from app.domain.streams import ConsumerFacts, StoredMessage, StreamFacts
from app.domain.watcher import Watcher
from app.jetstream.connection import NatsConnection
from app.jetstream.errors import ApiError, refusals
from app.jetstream.stream_api import READ_SECONDS, StreamApi, headers_of, unless_missing

_LOOKS: Final = 12
"""How often the stretch that is searched for the last messages is doubled: to a hundred thousand for twenty."""
_NANO: Final = 1e9


class JetStreamReader:
    """One watcher's stream, to look at."""

    def __init__(self, connection: NatsConnection, watcher: Watcher) -> None:
        self._api = StreamApi(connection)
        self._name = watcher.sink.stream
        self._space = watcher.space

    async def facts(self) -> StreamFacts | None:
        with refusals(self._name):
            stream = await unless_missing(self._api.info(self._name))
        if stream is None:
            return None
        config, state = stream.config, stream.state
        consumers, why = await self._consumers()
        return StreamFacts(
            name=self._name,
            subjects=tuple(stream.subjects),
            created=stream.created,
            storage=str(config.get("storage", "file")),
            retention=str(config.get("retention", "limits")),
            discard=str(config.get("discard", "old")),
            replicas=int(config.get("num_replicas", 1)),
            max_age_seconds=int(config.get("max_age", 0)) / _NANO,
            max_bytes=int(config.get("max_bytes", -1)),
            max_messages=int(config.get("max_msgs", -1)),
            duplicate_window_seconds=int(config.get("duplicate_window", 0)) / _NANO,
            messages=int(state["messages"]),
            bytes=int(state["bytes"]),
            first_sequence=int(state["first_seq"]),
            last_sequence=int(state["last_seq"]),
            consumer_count=int(state.get("consumer_count", 0)),
            consumers=consumers,
            consumers_why=why,
        )

    async def newest(self) -> int:
        message = await self._get({"last_by_subj": self._space})
        return 0 if message is None else message.sequence

    async def last(self, count: int) -> list[StoredMessage]:
        found: list[StoredMessage] = []
        if count == 0:
            return found
        end, stretch = await self.newest(), count
        for _ in range(_LOOKS):  # on a stream of others too the watcher's own may be far between
            begin = max(0, end - stretch)
            found = [*await self._newest_of(begin, end, count - len(found)), *found]
            if begin == 0 or len(found) >= count:
                break
            end, stretch = begin, stretch * 2
        return found

    async def after(self, sequence: int, limit: int) -> list[StoredMessage]:
        return await self._walk(sequence, None, limit)

    async def _newest_of(self, begin: int, end: int, count: int) -> list[StoredMessage]:
        """Return the newest of the messages after `begin` up to `end`: a stretch that holds many is halved."""
        many = 2 * count
        found = await self._walk(begin, end, many)
        if len(found) < many:
            return found[-count:]
        middle = (found[-1].sequence + end) // 2
        newer = await self._newest_of(middle, end, count)
        if len(newer) >= count:
            return newer
        between = await self._newest_of(found[-1].sequence, middle, count - len(newer))
        return [*found, *between, *newer][-count:]

    async def _walk(self, sequence: int, end: int | None, limit: int) -> list[StoredMessage]:
        """Return the first messages after `sequence`, up to `end`."""
        found: list[StoredMessage] = []
        while len(found) < limit and (end is None or sequence < end):
            message = await self._get({"seq": sequence + 1, "next_by_subj": self._space})
            if message is None or (end is not None and message.sequence > end):
                break
            found.append(message)
            sequence = message.sequence
        return found

    async def _get(self, wanted: dict[str, Any]) -> StoredMessage | None:
        with refusals(self._name):
            message = await unless_missing(self._api.message(self._name, wanted))
        if message is None:
            return None
        return StoredMessage(
            sequence=int(message["seq"]),
            time=datetime.fromisoformat(str(message["time"])).timestamp(),
            subject=str(message["subject"]),
            headers=headers_of(message),
            body=b64decode(message.get("data") or ""),
        )

    async def _consumers(self) -> tuple[tuple[ConsumerFacts, ...] | None, str | None]:
        """The first page of consumers (256 at most); None and why not, where they may not be listed."""
        try:
            answer = await self._api.call(f"CONSUMER.LIST.{self._name}", {"offset": 0}, seconds=READ_SECONDS)
        except NotAuthorised as error:
            return None, str(error)
        except ApiError as error:
            return None, f"NATS does not list the consumers: {error}"
        return tuple(sorted(map(_consumer, answer.get("consumers") or ()), key=lambda each: each.name)), None


def _consumer(info: dict[str, Any]) -> ConsumerFacts:
    config = info.get("config") or {}
    one = config.get("filter_subject")
    return ConsumerFacts(
        name=str(info["name"]),
        durable=bool(config.get("durable_name")),
        filter_subjects=tuple(config.get("filter_subjects") or ([one] if one else ())),
        delivered_sequence=int((info.get("delivered") or {}).get("stream_seq", 0)),
        pending=int(info.get("num_pending", 0)),
        ack_pending=int(info.get("num_ack_pending", 0)),
        redelivered=int(info.get("num_redelivered", 0)),
    )
