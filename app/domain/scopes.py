"""What a source may be over: a collection, a whole database or the deployment, with patterns of names; and what not.

Values only. A pattern that fits nothing yet is right: the collection may come. One that can never fit is refused.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from app.domain import patterns
from app.domain.checkpoint_place import TOKENS_DATABASE
from app.domain.errors import FieldProblem
from app.domain.names import (
    MAX_DATABASE,
    MAX_NAMESPACE,
    SYSTEM_COLLECTIONS,
    SYSTEM_DATABASES,
    collection_problem,
    database_problem,
)
from app.domain.patterns import EVERY, Pattern, is_name, parse

NEVER_WATCHED: Final = (*SYSTEM_DATABASES, TOKENS_DATABASE)
"""The databases that a deployment's watcher leaves out, beside the state database."""
MAX_ENTRIES: Final = 1_000
"""Entries in a list of patterns. MongoDB looks at each event with all of them: 200 names cost it as much again as an
event without a filter."""
MAX_WILD: Final = 20
"""How many of them may have a wildcard: one costs MongoDB as much as many names."""


def source_problems(
    database: str, collection: str, include: Sequence[str], exclude: Sequence[str], *, state_database: str
) -> list[FieldProblem]:
    """List what is wrong with the names and patterns of a source; empty where nothing is."""
    found: list[FieldProblem] = []
    if database or collection:
        problem = database_problem(database)
        if not database:
            problem = "is missing: a collection is in a database"
        elif not collection and database.lower() == TOKENS_DATABASE:
            problem = f"is {database}, where positions are kept: each checkpoint would be a change"
        if problem is not None:
            found.append(FieldProblem("source.database", problem))
        if database and _is_state(database, state_database):
            found.append(FieldProblem("source.database", f"is {database}, which holds Changewire's own state"))
    if collection:
        problem = collection_problem(database, collection)
        if problem is not None:
            found.append(FieldProblem("source.collection", problem))
        for field, entries in (("include", include), ("exclude", exclude)):
            if entries:
                problem = "chooses collections of a whole database or deployment; leave it out, or source.collection"
                found.append(FieldProblem(f"source.{field}", problem))
        return found
    for field, entries in (("include", include), ("exclude", exclude)):
        never = state_database if field == "include" else None
        found += _list_problems(f"source.{field}", entries, database, never)
    return found or list(_contradictions(database, include, exclude))


def image_problems(after: str | None, before: str | None, switch_on: bool) -> list[FieldProblem]:
    """List what may not be asked of collections that are not named one by one: some of them may not exist yet."""
    found = []
    if switch_on:
        problem = "switches images on for collections that are named: list their names in source.include"
        found.append(FieldProblem("source.pre_and_post_images", problem))
    for field, wish in (("full_document", after), ("full_document_before_change", before)):
        if wish == "required":
            problem = (
                "is `required`: the first collection without pre- and post-images would stop the watcher; list the "
                "names of the collections in source.include, or ask for `whenAvailable`"
            )
            found.append(FieldProblem(f"source.{field}", problem))
    return found


def _list_problems(
    field: str, entries: Sequence[str], database: str, state_database: str | None
) -> Iterator[FieldProblem]:
    """`state_database` is None where what is never watched may be named: it is left out."""
    if len(entries) > MAX_ENTRIES:
        yield FieldProblem(field, f"has {len(entries)} entries; the maximum is {MAX_ENTRIES}")
        return
    wild = sum(not is_name(entry) for entry in entries)
    if wild > MAX_WILD:
        yield FieldProblem(field, f"has {wild} entries with a wildcard; the maximum is {MAX_WILD}")
    for index, entry in enumerate(entries):
        problem = _entry_problem(entry, database, state_database)
        if problem is not None:
            yield FieldProblem(f"{field}.{index}", problem)


def _entry_problem(entry: str, database: str, state_database: str | None) -> str | None:
    """Say in a sentence why an entry is no pattern, or can never fit a collection that may be watched."""
    if not entry:
        return "is empty"
    if len(entry.encode()) > MAX_NAMESPACE:
        return f"is longer than the {MAX_NAMESPACE} bytes that MongoDB allows for a database, a dot and a collection"
    pattern = parse(entry, database)
    if not database:
        if not pattern.database or not pattern.collection:
            whole = entry.strip(".") or EVERY
            return f"is {entry!r}, which is not database.collection; write for example {whole}.*"
        if state_database is not None and (problem := _database_part_problem(pattern.database, state_database)):
            return problem
    return None if state_database is None else _collection_part_problem(pattern)


def _database_part_problem(part: str, state_database: str) -> str | None:
    if _is_state(part, state_database):
        return f"is of {part}, which holds Changewire's own state"
    if part.lower() == TOKENS_DATABASE:
        return f"is of {part}, where positions are kept: each checkpoint would be a change"
    # A wildcard stands for characters that are allowed.
    shown = part.replace("*", "").replace("?", "x")
    problem = database_problem(shown if is_name(part) or len(shown.encode()) >= MAX_DATABASE else f"{shown}x")
    return None if problem is None else f"has the database {part}, which {problem}"


def _collection_part_problem(pattern: Pattern) -> str | None:
    part = pattern.collection
    if is_name(part):
        problem = collection_problem(pattern.database, part)
        return None if problem is None else f"has the collection {part}, which {problem}"
    if part.startswith(SYSTEM_COLLECTIONS):
        return f"has {part}, which are system collections; they cannot be watched"
    if "\0" in part or "$" in part or part.startswith(".") or part.endswith("."):
        return f"has {part}, which fits no collection's name: no $, no NUL, no dot at either end"
    return None


def _contradictions(database: str, include: Sequence[str], exclude: Sequence[str]) -> Iterator[FieldProblem]:
    """Tell what an `exclude` takes away altogether."""
    choice = patterns.choice(database, (), tuple(exclude))
    whole = Pattern(database or EVERY, EVERY)
    if any(each == whole for each in choice.exclude):
        yield FieldProblem("source.exclude", "leaves out every collection: nothing would be published")
        return
    for index, entry in enumerate(include):
        wanted = parse(entry, database)
        by = next((out for out, each in zip(exclude, choice.exclude, strict=True) if _takes_away(each, wanted)), None)
        if by is not None:
            yield FieldProblem(f"source.include.{index}", f"is {entry}, which source.exclude leaves out with {by}")


def _takes_away(excluded: Pattern, wanted: Pattern) -> bool:
    return patterns.covers(excluded.database, wanted.database) and patterns.covers(
        excluded.collection, wanted.collection
    )


def _is_state(database: str, state_database: str) -> bool:
    return database.lower() == state_database.lower()  # MongoDB tells no two databases apart by case alone
