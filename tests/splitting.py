"""Servers with large change events, made of a real one around which a client stands.

`Splitting` splits them, as 6.0.9 and 7.0 do: `$changeStreamSplitLargeEvent` is taken out of a pipeline; each event then
comes in one fragment per document that it holds, with the token of a fragment, `splitEvent`, and without what the other
fragments have. A stream without the stage does not take such a token, as a real one does not.

`AlwaysTooLarge` finds every event too large to be sent with its documents.
"""

from collections.abc import Mapping
from typing import Any

import bson
from bson.raw_bson import RawBSONDocument
from bson.timestamp import Timestamp
from pymongo.errors import OperationFailure

PARTS = ("fullDocumentBeforeChange", "fullDocument")
STAGE = "$changeStreamSplitLargeEvent"


class _Around:
    """A motor client with some of its databases' commands changed. Everything else goes to the real one."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


class AlwaysTooLarge(_Around):
    """A motor client whose server finds each event too large, unless a stage takes its documents out or splits it."""

    def __init__(self, client: Any) -> None:
        super().__init__(client)
        self.whole: set[int] = set()
        """The cursors whose events have their documents."""

    def __getitem__(self, name: str) -> "_TooLargeDatabase":
        return _TooLargeDatabase(self, self._client[name])


class _TooLargeDatabase(_Around):
    def __init__(self, server: AlwaysTooLarge, database: Any) -> None:
        super().__init__(database)
        self._server = server

    async def command(self, command: Mapping[str, Any], **options: Any) -> Any:
        reply = await self._client.command(command, **options)
        if "pipeline" in command:
            whole = not {"$unset", "$project", STAGE}.intersection(command["pipeline"][-1])
        else:
            whole = command.get("getMore", 0) in self._server.whole
        if not whole:
            return reply
        cursor = reply["cursor"]
        if cursor.get("firstBatch") or cursor.get("nextBatch"):
            collection = command.get("collection") or command["aggregate"]
            await self._client.command({"killCursors": collection, "cursors": [cursor["id"]]})
            raise OperationFailure("BSONObj size is invalid", 10334)
        self._server.whole.add(cursor["id"])
        return reply


class Splitting(_Around):
    """A motor client whose server splits."""

    def __init__(self, client: Any) -> None:
        super().__init__(client)
        self.cursors: dict[int, list[RawBSONDocument]] = {}

    def __getitem__(self, name: str) -> "_SplittingDatabase":
        return _SplittingDatabase(self, self._client[name])


class _SplittingDatabase(_Around):
    def __init__(self, server: Splitting, database: Any) -> None:
        super().__init__(database)
        self._server = server

    async def command(self, command: Mapping[str, Any], **options: Any) -> Any:
        if "pipeline" in command:
            first, *stages = command["pipeline"]
            after = first["$changeStream"].get("startAfter", {}).get("_data", "")
            splitting = bool(stages) and STAGE in stages[-1]
            if "FRAGMENT" in after and not splitting:
                raise OperationFailure("to resume from a split event, the pipeline must split", 280)
            if splitting:
                return await self._split(command, [first, *stages[:-1]], options)
        waiting = self._server.cursors.get(command.get("getMore", 0))
        if waiting is not None:
            batch = waiting[: command["batchSize"]]
            del waiting[: command["batchSize"]]
            return _reply(command["getMore"], "nextBatch", batch)
        if "killCursors" in command:
            for cursor in command["cursors"]:
                self._server.cursors.pop(cursor, None)
            command = {**command, "cursors": [cursor for cursor in command["cursors"] if cursor > 0] or [1]}
        return await self._client.command(command, **options)

    async def _split(self, command: Mapping[str, Any], stages: list[Any], options: dict[str, Any]) -> Any:
        """Read the next event once without its documents and once with each, and answer with what that makes."""
        parts = []
        for left_out in (PARTS, *([other for other in PARTS if other != part] for part in PARTS)):
            pipeline = [*stages, {"$unset": list(left_out)}]
            reply = await self._client.command({**command, "pipeline": pipeline, "cursor": {"batchSize": 1}}, **options)
            parts.append(reply["cursor"]["firstBatch"][0])
        base, *documents = parts
        pieces = [{name: base[name] for name in base if name != "_id"}]
        pieces += [{name: one[name]} for name, one in zip(PARTS, documents, strict=True) if name in one]
        fragments = [
            RawBSONDocument(
                bson.encode(
                    {
                        "_id": {"_data": f"{base['_id']['_data']}FRAGMENT{number}"},
                        "splitEvent": {"fragment": number, "of": len(pieces)},
                        **piece,
                    }
                )
            )
            for number, piece in enumerate(pieces, 1)
        ]
        cursor = -1 - len(self._server.cursors)
        self._server.cursors[cursor] = fragments[1:]
        return _reply(cursor, "firstBatch", fragments[:1])


def _reply(cursor: int, name: str, batch: list[RawBSONDocument]) -> RawBSONDocument:
    token = batch[-1]["_id"] if batch else {"_data": ""}
    inner = {"id": cursor, name: batch, "postBatchResumeToken": token}
    return RawBSONDocument(bson.encode({"cursor": inner, "operationTime": Timestamp(1, 1)}))
