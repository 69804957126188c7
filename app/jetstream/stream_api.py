"""The JetStream API, as far as Changewire uses it: requests and answers in raw JSON.

nats-py's own types drop every setting that they do not know, and an update would reset it. Requests and answers are
those of the JetStream wire API reference; what servers 2.10, 2.11 and 2.15 really answer was tried. What an answer that
refuses means is in `errors.py`.
"""

from base64 import b64decode
from collections.abc import Awaitable
from typing import Any, TypeVar

import orjson

from app.domain.errors import NotAuthorised, SinkUnavailable
from app.domain.events import namespace_of
from app.domain.watcher import Watcher
from app.jetstream.connection import NatsConnection
from app.jetstream.errors import NAME_IN_USE, NO_MESSAGE, NOT_FOUND, ApiError, unknown_setting
from app.jetstream.frames import read_headers
from app.jetstream.streams import SWITCHES, Message, Stream, new_config

READ_SECONDS = 2.5
"""How long a read may take; a stream without a leader does not answer at all, and asking again is harmless."""
JETSTREAM_OFF = "JetStream is not enabled on the NATS server; start it with -js"

T = TypeVar("T")


async def unless_missing(answer: Awaitable[T]) -> T | None:
    """Return what a call of the API returns; None where it says that the stream does not exist."""
    try:
        return await answer
    except ApiError as error:
        if error.code == NOT_FOUND:
            return None
        raise


class StreamApi:
    """The part of the JetStream API that Changewire uses.

    Every call raises SinkUnavailable, NotAuthorised, and ApiError for what the server answers.
    """

    def __init__(self, connection: NatsConnection) -> None:
        self._connection = connection
        self._refused: dict[str, NotAuthorised] = {}
        """The streams that the account may not ask for, and what was said. An object is of use for one opening."""

    async def call(self, endpoint: str, body: dict[str, Any] | None = None, *, seconds: float = 5.0) -> dict[str, Any]:
        """Ask `$JS.API.<endpoint>` and return the answer."""
        payload = orjson.dumps(body) if body is not None else b""
        answer = await self._connection.request(f"$JS.API.{endpoint}", payload, seconds=seconds)
        if answer is None:
            raise SinkUnavailable(JETSTREAM_OFF)
        document: dict[str, Any] = orjson.loads(answer)
        if "error" in document:
            raise ApiError(document["error"])
        return document

    async def info(self, name: str) -> Stream:
        return _stream(await self.call(f"STREAM.INFO.{name}", seconds=READ_SECONDS))

    async def look(self, watcher: Watcher) -> Stream:
        """Return the watcher's stream as `info` does, and without the right to that in another way.

        To ask for a stream with the settings that it has is to be told of it: that much mongodb-nats-connector may. It
        is looked for first, since to ask for one that is missing is to make it. A stream may be older than fast ingest.
        Raises NotAuthorised where its settings are others."""
        name = watcher.sink.stream
        if name not in self._refused:
            try:
                return await self.info(name)
            except NotAuthorised as error:
                self._refused[name] = error
        await self.message(name, {"last_by_subj": watcher.space})
        config = new_config(watcher)
        for wanted in (config, {key: value for key, value in config.items() if key != "allow_batched"}):
            try:
                return await self.create(wanted)
            except ApiError as error:
                if error.code != NAME_IN_USE:
                    raise
        raise NotAuthorised(
            f"{self._refused[name]}. Without it only a stream with the settings that Changewire would create it "
            f"with can be used, and {name} has others"
        ) from self._refused[name]

    async def create(self, config: dict[str, Any]) -> Stream:
        """Create a stream, without those of `SWITCHES` that the server refuses because it does not know them."""
        while True:
            try:
                return _stream(await self.call(f"STREAM.CREATE.{config['name']}", config))
            except ApiError as error:
                unknown = unknown_setting(error)
                if unknown not in SWITCHES or unknown not in config:
                    raise
                config = {key: value for key, value in config.items() if key != unknown}

    async def update(self, config: dict[str, Any]) -> Stream:
        return _stream(await self.call(f"STREAM.UPDATE.{config['name']}", config))

    async def delete(self, name: str) -> None:
        await self.call(f"STREAM.DELETE.{name}")

    async def names(self, subject: str) -> list[str]:
        """Return the streams of which a subject overlaps the filter `subject`."""
        return list((await self.call("STREAM.NAMES", {"subject": subject})).get("streams") or ())

    async def all_names(self, pages: int) -> tuple[list[str], bool]:
        """Return the names of streams, of so many pages at most, and whether there are more."""
        found: list[str] = []
        for _ in range(pages):
            answer = await self.call("STREAM.NAMES", {"offset": len(found)}, seconds=READ_SECONDS)
            page = answer.get("streams") or ()
            found += page
            if not page or len(found) >= int(answer["total"]):
                return found, False
        return found, True

    async def last(self, name: str, subject: str) -> Message | None:
        """Return the last message whose subject matches the filter, asked of the stream's leader."""
        return await self._get(name, {"last_by_subj": subject})

    async def at(self, name: str, sequence: int) -> Message | None:
        """Return the message with this sequence; None where it is gone."""
        return await self._get(name, {"seq": sequence})

    async def next(self, name: str, subject: str, sequence: int) -> Message | None:
        """Return the first message from this sequence on whose subject matches the filter."""
        return await self._get(name, {"seq": sequence, "next_by_subj": subject})

    async def message(self, name: str, wanted: dict[str, Any]) -> dict[str, Any] | None:
        """Return the message that is `wanted` (`seq`, `last_by_subj`, `next_by_subj`) as the API gives it."""
        try:
            answer = await self.call(f"STREAM.MSG.GET.{name}", wanted, seconds=READ_SECONDS)
        except ApiError as error:
            if error.code == NO_MESSAGE:
                return None
            raise
        message: dict[str, Any] = answer["message"]
        return message

    async def _get(self, name: str, wanted: dict[str, Any]) -> Message | None:
        message = await self.message(name, wanted)
        if message is None:
            return None
        namespace = namespace_of(b64decode(message.get("data") or ""))
        return Message(int(message["seq"]), str(message["subject"]), headers_of(message).get("Nats-Msg-Id"), namespace)


def headers_of(message: dict[str, Any]) -> dict[str, str]:
    """Return the headers of a message as the API gives it."""
    return read_headers(b64decode(message["hdrs"])) if message.get("hdrs") else {}


def _stream(answer: dict[str, Any]) -> Stream:
    return Stream(answer["config"], answer["state"], str(answer["created"]), str(answer.get("ts") or ""))
