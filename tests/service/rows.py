"""What a snapshot's rows have to be, beside the changes around them: the strongest thing that can be said of a stream.

Changes and rows are applied in the order of the stream, to what the collection held when the watcher began. A row has
to be the document exactly as the changes before it have left it: not one change older, not one newer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tests.service.messages import Message

RUN = "Changewire-Snapshot"
ROW, DONE = "snapshot", "snapshot_done"


def is_of_snapshot(message: Message) -> bool:
    return RUN in message.headers


def check_rows(
    before: Mapping[Any, int],
    messages: Sequence[Message],
    after: Mapping[Any, int],
    *,
    run: str = "",
    whole: bool = True,
) -> int:
    """Check every row of a stream, and return how many there are.

    `before` is what the collection held when the watcher began, `after` what it holds in the end: the number of each
    document by its `_id`. `whole`: the one run `run` is complete, so a consumer that has only the stream has it all.
    """
    state, known = dict(before), {}
    rows: dict[tuple[str, Any], int] = {}
    done: list[str] = []
    last = ""
    for message in messages:
        event = message.event
        operation = event["operationType"]
        assert message.id > last or operation not in (ROW, DONE), f"{message.id} after {last}"
        last = message.id
        if operation == DONE:
            assert event["snapshot"]["run"] == message.headers[RUN]
            assert event["snapshot"]["documents"] == sum(row[0] == message.headers[RUN] for row in rows)
            done.append(message.headers[RUN])
            continue
        key = event["documentKey"]["_id"]
        if operation == ROW:
            of = (message.headers[RUN], key)
            assert of not in rows, f"{key} is on the stream twice, at {rows[of]} and {message.sequence}"
            assert of[0] not in done, f"{key} comes after its run's end"
            assert key in state, f"{key} at {message.sequence} was deleted, or not there yet, at this place"
            assert event["fullDocument"]["n"] == state[key], (
                f"{key} at {message.sequence} is not as it was at this place"
            )
            assert event["_id"]["_data"] == message.id
            rows[of] = message.sequence
            known[key] = state[key]
        elif operation == "delete":
            state.pop(key, None)
            known.pop(key, None)
        else:
            state[key] = known[key] = message.change.number
    assert state == after, "the stream's changes do not lead to what is there"
    if whole:
        assert done.count(run or done[0]) == 1, f"runs that are complete: {done}"
        missing = [key for key in after if key not in known]
        assert not missing, f"{len(missing)} documents are not on the stream: {missing[:5]}"
        assert known == after
    return len(rows)
