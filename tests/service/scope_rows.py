"""The same as `rows.py` for keys of every type, and for many collections that are made, renamed and dropped."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from bson import json_util

from tests.service.messages import Message
from tests.service.rows import DONE, ROW, RUN

Named = tuple[str, str]
"""A collection's name, and a document's `_id` as Extended JSON."""


def named(collection: str, key: Any) -> Named:
    """Name a document by what its key is in MongoDB."""
    return collection, json_util.dumps(key, json_options=json_util.RELAXED_JSON_OPTIONS, sort_keys=True)


def check_scope(
    before: Mapping[Named, int],
    messages: Sequence[Message],
    after: Mapping[Named, int],
    *,
    whole: bool = True,
    unread: str = "",
) -> int:
    """Check every row of a stream, and return how many there are; parameters as for `check_rows`, of one run. The names
    of collections that the watcher does not read begin with `unread`."""
    state, known = dict(before), {}
    rows: set[Named] = set()
    count, done = 0, 0
    last = ""
    for message in messages:
        event = message.event
        operation, place = event["operationType"], event["_id"]["_data"]
        if operation in (ROW, DONE):
            assert message.id > last, f"{message.id} after {last}"
            assert place == message.id
        last = message.id
        if operation == DONE:
            assert event["snapshot"] | {"collections": []} == {
                "run": message.headers[RUN], "documents": count, "collections": []
            }  # fmt: skip
            done += 1
            missing = [each for each in state if each not in known and not (unread and each[0].startswith(unread))]
            assert not missing, f"{len(missing)} documents are there at the run's end, and not told: {missing[:5]}"
            continue
        collection = event["ns"]["coll"]
        if operation == "drop":
            for each in [each for each in state if each[0] == collection]:
                state.pop(each)
                known.pop(each, None)
            rows = {each for each in rows if each[0] != collection}  # what has the name next is another one
            continue
        if operation == "rename":
            to = event["to"]["coll"]
            for of in (state, known):
                moved = {(to, each[1]): of[each] for each in list(of) if each[0] == collection}
                for each in [each for each in of if each[0] in (collection, to)]:
                    of.pop(each)
                of.update(moved)
            rows = {(to, each[1]) for each in rows if each[0] == collection} | {
                each for each in rows if each[0] not in (collection, to)
            }
            continue
        if operation == "invalidate":
            continue
        document = collection, json.dumps(event["documentKey"]["_id"], sort_keys=True)
        if operation == ROW:
            assert document not in rows, f"{document} is on the stream twice"
            assert not done, f"{document} comes after its run's end"
            assert document in state, f"{document} at {message.sequence} was not there at this place"
            number = event["fullDocument"]["n"]
            assert number == state[document], (
                f"{document} at {message.sequence} is {number}, and was {state[document]} at this place"
            )
            rows.add(document)
            count += 1
            known[document] = number
        elif operation == "delete":
            state.pop(document, None)
            known.pop(document, None)
        else:
            state[document] = known[document] = message.change.number or 0
    assert state == after, (
        f"the stream's changes do not lead to what is there: {set(state.items()) ^ set(after.items())}"
    )
    if whole:
        assert done == 1
        missing = [each for each in after if each not in known]
        assert not missing, f"{len(missing)} documents are not on the stream: {missing[:5]}"
        assert known == after
    return count
