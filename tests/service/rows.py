"""What a snapshot's rows have to be, beside the changes around them: the strongest thing that can be said of a stream.

Changes and rows are applied in the order of the stream, to what the collection held when the watcher began. A row has
to be the document exactly as the changes before it have left it: not one change older, not one newer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.service.messages import Message

RUN = "Changewire-Snapshot"
ROW, DONE = "snapshot", "snapshot_done"


def is_of_snapshot(message: Message) -> bool:
    return RUN in message.headers


@dataclass
class Run:
    """One run, as far as the stream was read. `due` are documents that were there at its first row and still are."""

    due: set[Any]
    rows: dict[Any, int] = field(default_factory=dict)
    """The sequence of each document's row."""
    done: bool = False


@dataclass
class Applied:
    """What a consumer knows that applies changes and rows in their order, and the runs that it has met.

    `state` is what the collection holds: the number of each document by its `_id`. `known` is the part of it that the
    stream has told. `wrong` is what is not as it should be, in words."""

    state: dict[Any, Any]
    known: dict[Any, Any] = field(default_factory=dict)
    runs: dict[str, Run] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    last: str = ""

    def apply(self, messages: Iterable[Message]) -> None:
        for message in messages:
            event = message.event
            operation = event["operationType"]
            if operation in (ROW, DONE):
                if message.id <= self.last:
                    self.wrong.append(f"{message.id} comes after {self.last}")
                self._row(message, event, operation)
            elif operation == "delete":
                key = event["documentKey"]["_id"]
                self.state.pop(key, None)
                self.known.pop(key, None)
                for run in self.runs.values():
                    run.due.discard(key)
            else:
                key = event["documentKey"]["_id"]
                self.state[key] = self.known[key] = message.change.number
            self.last = message.id

    def _row(self, message: Message, event: Mapping[str, Any], operation: str) -> None:
        name = message.headers[RUN]
        run = self.runs.setdefault(name, Run(set(self.state)))
        if run.done:
            self.wrong.append(f"{message.id} comes after the end of the run {name}")
        if event["_id"]["_data"] != message.id:
            self.wrong.append(f"{message.id} has another place in its body")
        if operation == DONE:
            run.done = True
            counted = event["snapshot"]
            if (counted["run"], counted["documents"]) != (name, len(run.rows)):
                self.wrong.append(f"{len(run.rows)} rows of the run {name}, and its end says {counted}")
            if missing := run.due - run.rows.keys():
                self.wrong.append(f"{len(missing)} documents are not in the run {name}: {list(missing)[:5]}")
            return
        key, number = event["documentKey"]["_id"], event["fullDocument"]["n"]
        if key in run.rows:
            self.wrong.append(f"{key} is in the run {name} twice, at {run.rows[key]} and {message.sequence}")
        elif key not in self.state:
            self.wrong.append(f"{key} at {message.sequence} was deleted, or not there yet, at this place")
        elif number != self.state[key]:
            self.wrong.append(f"{key} at {message.sequence} is {number}, and {self.state[key]} at this place")
        run.rows[key] = message.sequence
        self.known[key] = number


def check_rows(
    before: Mapping[Any, Any],
    messages: Sequence[Message],
    after: Mapping[Any, Any],
    *,
    run: str = "",
    whole: bool = True,
) -> int:
    """Check every row of a stream, and return how many there are; there may be several runs.

    `before` is what the collection held when the watcher began, `after` what it holds in the end: the number of each
    document by its `_id`. `whole`: a run (`run`, where it is given) is complete, so a consumer that has only the stream
    has it all."""
    applied = Applied(dict(before))
    applied.apply(messages)
    assert not applied.wrong, f"{len(applied.wrong)} faults: {applied.wrong[:5]}"
    assert applied.state == after, "the stream's changes do not lead to what is there"
    if whole:
        complete = [name for name, each in applied.runs.items() if each.done]
        assert run in complete if run else complete, f"runs that are complete: {complete} of {list(applied.runs)}"
        assert applied.known == after, "a consumer of the stream alone does not have what is there"
    return sum(len(each.rows) for each in applied.runs.values())
