"""A MongoDB that splits large change events, as 6.0.9 and 7.0 do, made of a real server that does not.

`$changeStreamSplitLargeEvent` is taken out of a pipeline; each event then comes in one fragment per document that it
holds, with the token of a fragment, `splitEvent`, and without what the other fragments have. A stream without the stage
does not take such a token, as a real one does not.
"""

from collections.abc import Mapping
from typing import Any

import bson
from bson.raw_bson import RawBSONDocument
from pymongo.errors import OperationFailure

PARTS = ("fullDocumentBeforeChange", "fullDocument")
STAGE = "$changeStreamSplitLargeEvent"


class Splitting:
    """A motor client whose server splits. Everything else goes to the real one."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.cursors: dict[int, list[RawBSONDocument]] = {}

    def __getitem__(self, name: str) -> "_Database":
        return _Database(self, self._client[name])

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


class _Database:
    def __init__(self, server: Splitting, database: Any) -> None:
        self._server = server
        self._database = database

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)

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
        return await self._database.command(command, **options)

    async def _split(self, command: Mapping[str, Any], stages: list[Any], options: dict[str, Any]) -> Any:
        """Read the next event once without its documents and once with each, and answer with what that makes."""
        parts = []
        for left_out in (PARTS, *([other for other in PARTS if other != part] for part in PARTS)):
            pipeline = [*stages, {"$unset": list(left_out)}]
            reply = await self._database.command(
                {**command, "pipeline": pipeline, "cursor": {"batchSize": 1}}, **options
            )
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


def _reply(cursor: int, name: str, batch: list[RawBSONDocument]) -> dict[str, Any]:
    return {"cursor": {"id": cursor, name: batch}}
