"""Conflicts between two watchers: the same subjects, or the same place for their positions.

A watcher's subjects are its own, since the last message among them says how far it got.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from app.domain import subjects
from app.domain.buckets import OBJECTS, bucket_of
from app.domain.dead_letters import letters_of, meets_letters
from app.domain.errors import Conflict
from app.domain.watcher import Sink, Watcher


def refuse_overlap(watcher: Watcher, others: Sequence[Watcher], *, in_file: bool = False) -> None:
    """Raise Conflict where another watcher publishes to the same subjects, or the same changes to the same stream,
    keeps its position in the same place, or one would watch what the other keeps its position in, or publish to where
    the other keeps its dead letters, or what is too large for a message.

    The message names the other watcher and a value that would work, `in_file` in the words of `connector.yaml`.
    """
    for other in others:
        if other.name == watcher.name:
            continue
        found = (
            _subjects(watcher, other, others, in_file),
            _letters(watcher, other),
            _objects(watcher, other),
            _place(watcher, other, in_file),
        )
        faults = [fault for fault in found if fault is not None]
        if faults:
            raise Conflict(f"{watcher.name} would " + "; and it would ".join(faults))


def _subjects(watcher: Watcher, other: Watcher, others: Sequence[Watcher], in_file: bool) -> str | None:
    if subjects.overlap(watcher.space, other.space):
        fault = f"publish to {watcher.space}, which watcher {other.name} uses ({other.space})."
        more = (
            f"; or, where {watcher.sink.stream} takes more subjects, another sink.subject on it, such as "
            f"'{_free_template(watcher, others)}'"
        )
    elif (watcher.sink.stream, watcher.source.namespace) == (other.sink.stream, other.source.namespace):
        fault = (
            f"publish the changes of {watcher.source.namespace} to {watcher.sink.stream}, like watcher {other.name}: "
            "their message ids are the same, and the stream would drop one of each two as a duplicate."
        )
        more = ""
    else:
        return None
    stream, subject = _free_place(watcher, others)
    if in_file:
        return f"{fault} Give it a streamName of its own, such as '{stream}'"
    return f"{fault} Give it a stream of its own, with sink.stream '{stream}' and sink.subject '{subject}'{more}"


def _letters(watcher: Watcher, other: Watcher) -> str | None:
    for one, keeper in ((watcher, other), (other, watcher)):
        kept = letters_of(keeper.sink.stream)
        meets = meets_letters(one.space, keeper.sink.stream)
        if one.sink.stream == kept or meets:
            place = one.sink.stream if one.sink.stream == kept else one.space
            if keeper is other:
                return f"publish to {place}, where watcher {other.name} keeps its dead letters (the stream {kept})"
            return f"keep its dead letters in the stream {kept}, where watcher {other.name} publishes ({place})"
    return None


def _objects(watcher: Watcher, other: Watcher) -> str | None:
    for one, keeper in ((watcher, other), (other, watcher)):
        stream = one.sink.stream
        if stream in {OBJECTS + bucket_of(kept) for kept in (keeper.sink.stream, letters_of(keeper.sink.stream))}:
            if keeper is other:
                return f"publish to {stream}, where watcher {other.name} keeps what is too large for a message"
            return f"keep what is too large for a message in {stream}, where watcher {other.name} publishes"
    return None


def _place(watcher: Watcher, other: Watcher, in_file: bool) -> str | None:
    mine, theirs = (place and place.namespace for place in (watcher.checkpoint, other.checkpoint))
    if watcher.source.namespace == theirs:
        return f"watch {theirs}, where watcher {other.name} keeps its position: each checkpoint would be a change"
    field = "tokensCollName" if in_file else "checkpoint.collection"
    elsewhere = f"Give it another {field}, such as '{watcher.source.namespace}'"
    if mine == other.source.namespace:
        return (
            f"keep its position in {mine}, which watcher {other.name} watches: each checkpoint would be a change. "
            f"{elsewhere}"
        )
    if mine is not None and mine == theirs:
        return f"keep its position in {mine}, where watcher {other.name} keeps its own. {elsewhere}"
    return None


def _free_place(watcher: Watcher, others: Iterable[Watcher]) -> tuple[str, str]:
    """A stream that no other watcher uses, and a template that overlaps with no other watcher."""
    base = subjects.escape(f"{watcher.source.database}_{watcher.source.collection}".upper())
    for stream in (base, *(f"{base}_{number}" for number in range(2, 10))):
        for template in (watcher.sink.subject, Sink().subject):
            offered = replace(watcher, sink=replace(watcher.sink, stream=stream, subject=template))
            if not any(other.sink.stream == stream or subjects.overlap(offered.space, other.space) for other in others):
                return stream, template
    return base, Sink().subject


def _free_template(watcher: Watcher, others: Iterable[Watcher]) -> str:
    for template in ("{stream}.{database}.{operation}", "{stream}.{database}.{collection}.{operation}"):
        offered = replace(watcher, sink=replace(watcher.sink, subject=template))
        if not any(subjects.overlap(offered.space, other.space) for other in others):
            return template
    return f"{subjects.escape(watcher.name)}.{{database}}.{{collection}}.{{operation}}"
