"""What a database's or deployment's change stream is filtered with, so that MongoDB sends only what is watched.

It says the same as `Source.has`, in the server's words: names are one `$in`, each pattern with a wildcard is a regular
expression (what they cost is in decision 0037). What the filter drops is not looked up for `updateLookup`, and not
sent. Three kinds of events need a word of their own:

- A rename belongs to the name before (`ns`) and to the one after (`to`): it is read where either is watched.
- A dropDatabase has no collection: it is read where a collection of the database may be watched.
- An invalidate has no namespace. It always passes, since the cursor has ended with it.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from app.domain.patterns import EVERY, Pattern, expression, is_name
from app.domain.scopes import NEVER_WATCHED
from app.domain.watcher import Source


def scope_filter(source: Source, state_database: str) -> list[dict[str, Any]]:
    """Return the stages that follow `$changeStream`; none where a collection is watched, or all of a database."""
    if source.collection:
        return []
    left_out = [] if source.database else [{"ns.db": {"$nin": [*NEVER_WATCHED, state_database]}}]
    chosen = [_chosen(source)] if source.include or source.exclude else []
    conditions = [*left_out, *chosen]
    return [{"$match": conditions[0] if len(conditions) == 1 else {"$and": conditions}}] if conditions else []


def _chosen(source: Source) -> dict[str, Any]:
    choice, fixed = source.choice, bool(source.database)
    included = choice.include if source.include else ()
    databases = [
        {"operationType": "dropDatabase"} | ({} if fixed else {"$and": _of_databases(included, choice.exclude)}),
        {"operationType": "invalidate"},
    ]
    return {"$or": [*(_named(part, included, choice.exclude, fixed=fixed) for part in ("ns", "to")), *databases]}


def _named(part: str, include: Sequence[Pattern], exclude: Sequence[Pattern], *, fixed: bool) -> dict[str, Any]:
    """The condition on the collection that an event names in `ns` or `to`."""
    conditions: list[dict[str, Any]] = []
    if include:
        conditions.append({"$or": list(_any_of(part, include, fixed=fixed))})
    else:
        conditions.append({f"{part}.coll": {"$exists": True}})
    if exclude:
        conditions.append({"$nor": list(_any_of(part, exclude, fixed=fixed))})
    return {"$and": conditions}


def _any_of(part: str, patterns: Sequence[Pattern], *, fixed: bool) -> Iterable[dict[str, Any]]:
    """Conditions of which one has to hold: the names of each database together, and each pattern with a wildcard."""
    names: dict[str, list[str]] = {}
    for each in patterns:
        if is_name(each.collection):
            names.setdefault(each.database, []).append(each.collection)
    for database, collections in names.items():
        yield _in(part, database, {"$in": collections}, fixed=fixed)
    for each in patterns:
        if not is_name(each.collection):
            yield _in(part, each.database, _condition(each.collection), fixed=fixed)


def _in(part: str, database: str, collection: Mapping[str, Any], *, fixed: bool) -> dict[str, Any]:
    """`fixed`: the stream is over one database anyway."""
    where = {} if fixed or database == EVERY else {f"{part}.db": _condition(database)}
    return {**where, f"{part}.coll": dict(collection)}


def _of_databases(include: Sequence[Pattern], exclude: Sequence[Pattern]) -> list[dict[str, Any]]:
    """Conditions that hold together where a collection of an event's database may be watched."""
    some = [{"ns.db": _condition(each.database)} for each in include]
    none = [{"ns.db": _condition(each.database)} for each in exclude if each.collection == EVERY]
    return [{"ns.db": {"$exists": True}}, *([{"$or": some}] if some else []), *([{"$nor": none}] if none else [])]


def _condition(pattern: str) -> dict[str, Any]:
    if is_name(pattern):
        return {"$eq": pattern}
    return {"$regex": expression(pattern, end=r"\z"), "$options": "s"}
