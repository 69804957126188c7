"""Conflicts between two watchers: the same subjects, or the same place for their positions.

A watcher's subjects are its own, since the last message among them says how far it got.
"""

import itertools
from collections.abc import Iterable
from dataclasses import replace

from app.domain import subjects
from app.domain.buckets import OBJECTS, bucket_of
from app.domain.dead_letters import letters_of, meets_letters
from app.domain.errors import Conflict, FieldProblem
from app.domain.overlap_index import Others
from app.domain.patterns import meet
from app.domain.watcher import Source, Watcher, default_subject


def refuse_overlap(watcher: Watcher, others: Others | Iterable[Watcher], *, in_file: bool = False) -> None:
    """Raise Conflict where another watcher publishes to the same subjects, or the same changes to the same stream,
    keeps its position in the same place, or one would watch what the other keeps its position in, or publish to where
    the other keeps its dead letters, or what is too large for a message.

    The message names the other watcher and a value that would work, `in_file` in the words of `connector.yaml`. Many
    others are better given by an index: only those near the watcher are compared then, with the same result. Of several
    others that it conflicts with in the same field, the first is named.
    """
    faults: dict[str, list[str]] = {}
    for other in _near(watcher, others):
        if other.name == watcher.name:
            continue
        found = (
            ("sink.subject", [_subjects(watcher, other, others, in_file)] if "sink.subject" not in faults else []),
            ("sink.stream", [_letters(watcher, other), _objects(watcher, other)]),
            ("source", [_watched_place(one, each) for one in _alone(watcher) for each in _alone(other)]),
            (
                "checkpoint.collection",
                [_place(one, each, in_file) for one in _alone(watcher) for each in _alone(other)],
            ),
        )
        for field, said in found:
            if field not in faults and (new := [fault for fault in said if fault is not None]):
                faults[field] = new
    if faults:
        problems = tuple(FieldProblem(field, f"would {fault}") for field, said in faults.items() for fault in said)
        raise Conflict(f"{watcher.name} would " + "; and it would ".join(itertools.chain(*faults.values())), problems)


def _subjects(watcher: Watcher, other: Watcher, others: Others | Iterable[Watcher], in_file: bool) -> str | None:
    shared = watcher.sink.stream == other.sink.stream and _share_changes(watcher, other)
    if subjects.overlap(watcher.space, other.space):
        fault = f"publish to {watcher.space}, which watcher {other.name} uses ({other.space})."
        more = (
            ""
            if shared
            # what two watchers share cannot be on one stream, whatever the subjects
            else (
                f"; or, where {watcher.sink.stream} takes more subjects, another sink.subject on it, such as "
                f"'{_free_template(watcher, others)}'"
            )
        )
    elif shared:
        fault = (
            f"publish changes of {_narrower(watcher, other)} to {watcher.sink.stream}, like watcher {other.name}: "
            "their message ids are the same, and the stream would drop one of each two as a duplicate."
        )
        more = ""
    else:
        return None
    stream, subject = _free_place(watcher, others)
    if in_file:
        return f"{fault} Give it a streamName of its own, such as '{stream}'"
    return f"{fault} Give it a stream of its own, with sink.stream '{stream}' and sink.subject '{subject}'{more}"


_OF_SEVERAL = frozenset({"rename", "dropDatabase", "invalidate"})
"""Operations that are changes of more than one collection."""


def _share_changes(watcher: Watcher, other: Watcher) -> bool:
    """Whether some change is one of both watchers."""
    mine, theirs = watcher.source, other.source
    if not mine.is_scope and not theirs.is_scope:
        return mine.namespace == theirs.namespace
    if mine.database and theirs.database and mine.database != theirs.database:
        return False
    if _OF_SEVERAL.intersection(watcher.sink.operations, other.sink.operations):
        return True
    return _may_both_have(mine, theirs)


def _may_both_have(mine: Source, theirs: Source) -> bool:
    """Whether there may be a collection of both; of two scopes as their `include` says, whatever they exclude."""
    for scope, single in ((mine, theirs), (theirs, mine)):
        if not single.is_scope:
            return scope.has(single.database, single.collection)
    return any(
        meet(one.database, other.database) and meet(one.collection, other.collection)
        for one in mine.choice.include
        for other in theirs.choice.include
    )


def _narrower(watcher: Watcher, other: Watcher) -> str:
    """What both watch, in a word."""
    return max((watcher.source.namespace, other.source.namespace), key=len)


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


def _watched_place(watcher: Watcher, other: Watcher) -> str | None:
    place = other.checkpoint
    if place is None or not watcher.source.has(place.database, place.collection):
        return None
    return f"watch {place.namespace}, where watcher {other.name} keeps its position: each checkpoint would be a change"


def _place(watcher: Watcher, other: Watcher, in_file: bool) -> str | None:
    mine, theirs = (place and place.namespace for place in (watcher.checkpoint, other.checkpoint))
    field = "tokensCollName" if in_file else "checkpoint.collection"
    elsewhere = f"Give it another {field}, such as '{_free_collection(watcher)}'"
    if watcher.checkpoint and other.source.has(watcher.checkpoint.database, watcher.checkpoint.collection):
        return (
            f"keep its position in {mine}, which watcher {other.name} watches: each checkpoint would be a change. "
            f"{elsewhere}"
        )
    if mine is not None and mine == theirs:
        return f"keep its position in {mine}, where watcher {other.name} keeps its own. {elsewhere}"
    return None


def _free_collection(watcher: Watcher) -> str:
    """A collection for positions that no watcher uses by itself."""
    return watcher.name.replace("$", "_") if watcher.source.is_scope else watcher.source.namespace


def _alone(watcher: Watcher) -> tuple[Watcher, ...]:
    """Return the watchers with a place each: the entries of one that has several."""
    return watcher.entries or (watcher,)


def _free_place(watcher: Watcher, others: Others | Iterable[Watcher]) -> tuple[str, str]:
    """A stream that no other watcher uses, and a template that overlaps with no other watcher."""
    source = watcher.source
    base = subjects.escape("_".join(filter(None, (source.database, source.collection))).upper()) or "DEPLOYMENT"
    for stream in (base, *(f"{base}_{number}" for number in range(2, 10))):
        for template in (watcher.sink.subject, default_subject(source)):
            offered = replace(watcher, sink=replace(watcher.sink, stream=stream, subject=template))
            near = _near(offered, others)
            if not any(other.sink.stream == stream or subjects.overlap(offered.space, other.space) for other in near):
                return stream, template
    return base, default_subject(source)


def _free_template(watcher: Watcher, others: Others | Iterable[Watcher]) -> str:
    for template in ("{stream}.{database}.{operation}", "{stream}.{database}.{collection}.{operation}"):
        offered = replace(watcher, sink=replace(watcher.sink, subject=template))
        if not any(subjects.overlap(offered.space, other.space) for other in _near(offered, others)):
            return template
    return f"{subjects.escape(watcher.name)}.{{database}}.{{collection}}.{{operation}}"


def _near(watcher: Watcher, others: Others | Iterable[Watcher]) -> Iterable[Watcher]:
    """Those of the others with which a watcher could conflict; all where they are only listed."""
    return others if isinstance(others, Iterable) else others.near(watcher)
