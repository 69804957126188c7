"""A change stream opened only to see what the server makes of it.

One try is a `probe`: open, note the position, close. Comparing tries tells what the server objects to in a pipeline or
an option. Where a start leads is found with it (`start.py`), and what an error of the stream means (`diagnosis.py`).
"""

import contextlib
from collections.abc import Mapping
from typing import Any, Final

from pymongo.errors import OperationFailure, PyMongoError

from app.domain.errors import SourceRefused
from app.domain.javascript import javascript_in
from app.domain.watcher import Watcher
from app.mongodb import images
from app.mongodb.bounded import run_bounded
from app.mongodb.cursor import RAW
from app.mongodb.errors import STANDALONE, of_stream, resource_of, translated
from app.mongodb.pinning import Pin, pinned
from app.mongodb.reach import Reach
from app.mongodb.stream import MONGODB_6_0, StreamRequest
from app.mongodb.words import words

PROBE_MS: Final = 1_000
"""For a try whose answer is the error: a lost history or a bad token shows at once, a long scan proves nothing more."""


class StreamTrial:
    """One watcher's change stream, as far as it can be known without keeping one open."""

    def __init__(self, watcher: Watcher, reach: Reach) -> None:
        self.namespace = watcher.source.namespace
        self.request = StreamRequest(watcher.source, reach.state_database)
        self.reach = reach
        self._source = watcher.source
        self.position = ""
        """Where the stream began that was opened last to look what the server refuses."""
        self._deployment = ""
        self._database = reach.client[self.request.target.sent_to]

    @property
    def scope(self) -> str:
        """See `ports.ChangeSource`."""
        return f"{self._deployment}/{self.namespace}"

    async def prepare(self, *, may_create: bool = True) -> int:
        """See `ports.ChangeSource`."""
        with self.translated("connecting"):
            hello = await self.reach.hello.ask()
            if "setName" not in hello and hello.get("msg") != "isdbgrid":
                raise SourceRefused(STANDALONE)
            self._deployment = hello.get("setName") or "sharded"
            self.request.wire_version = hello["maxWireVersion"]
            if self._source.pre_and_post_images and may_create:
                if self.request.wire_version < MONGODB_6_0:
                    raise SourceRefused("pre_and_post_images needs MongoDB 6.0 or later")
                for database, collection in self._source.named:
                    await images.switch_on(self.reach.client[database], collection)
        return int(hello["operationTime"].time)

    async def probe(
        self, start: Mapping[str, Any], *, pipeline: bool = True, options: bool = True, batch_size: int = 0, **more: Any
    ) -> str:
        """Open a stream and close it again; return the position where it was opened. Raises what pymongo raises."""
        target = self.request.target
        stages = self.request.stages(start, options=options, pipeline=pipeline)
        command = {**target.aggregate(stages, size=batch_size), **more}
        with pinned(Pin()):
            cursor = (await self._run(command, bounded=pipeline and "maxTimeMS" in more))["cursor"]
            if cursor["id"]:
                with contextlib.suppress(PyMongoError):
                    await self._database.command(target.kill(cursor["id"]))
        return str(cursor["postBatchResumeToken"]["_data"])

    async def _run(self, command: dict[str, Any], *, bounded: bool) -> Mapping[str, Any]:
        if bounded and javascript_in(self._source.pipeline) is not None:
            seconds = 2 * PROBE_MS / 1000
            return await run_bounded(self.reach.client, self._database.name, command, seconds=seconds)
        return await self._database.command(command, codec_options=RAW)

    async def objection(self) -> tuple[str, str] | None:
        """Open the stream as it is configured, from now, running nothing; tell what the server refuses.

        Returns None where it opens, else `pipeline` or `options` and the server's words. What it refuses it has to
        refuse twice, with something that it takes in between: else that was a bad moment. Raises what pymongo raises
        for that, and for everything that is neither.
        """
        first = await self.refused({})
        if first is None:
            return None
        without = await self.refused({}, pipeline=False)
        if without is None:
            part, again = "pipeline", await self.refused({})
        else:
            await self.probe({}, pipeline=False, options=False)
            part, first, again = "options", without, await self.refused({}, pipeline=False)
        if again is None or again.code != first.code:
            raise first
        return part, words(first)

    async def refused(self, start: Mapping[str, Any], *, pipeline: bool = True) -> OperationFailure | None:
        """Try to open the stream, and return the error that may be about what was asked. Raises all others."""
        try:
            self.position = await self.probe(start, pipeline=pipeline)
        except OperationFailure as error:
            if of_stream(error, self._source) is not None:
                raise
            return error
        return None

    def translated(self, doing: str) -> contextlib.AbstractContextManager[None]:
        """Translate errors of an ordinary command. `doing` completes "MongoDB failed while …"."""
        grant = f"find and changeStream, and for images createCollection and collMod, on {resource_of(self._source)}"
        return translated(doing, grant=grant)
