"""Which pipelines run JavaScript in the MongoDB server. Values only."""

from collections.abc import Mapping, Sequence
from typing import Any

JAVASCRIPT = frozenset({"$function", "$accumulator", "$where"})
"""The operators that run JavaScript in the MongoDB server."""


def javascript_in(pipeline: Sequence[Mapping[str, Any]]) -> str | None:
    """Return the first operator of a pipeline, wherever it stands, that runs JavaScript in the server."""
    left: list[Any] = list(pipeline)
    while left:
        value = left.pop()
        if isinstance(value, Mapping):
            found = JAVASCRIPT.intersection(value)
            if found:
                return min(found)
            left.extend(value.values())
        elif isinstance(value, list | tuple):
            left.extend(value)
    return None


def javascript_problem(pipeline: Sequence[Mapping[str, Any]]) -> str | None:
    """Say in a sentence why a pipeline may not be run where JavaScript is not allowed, or return None."""
    operator = javascript_in(pipeline)
    if operator is None:
        return None
    return (
        f"uses {operator}, which runs JavaScript in the MongoDB server: write it with other operators, or set "
        "CHANGEWIRE_ALLOW_SERVER_SIDE_JAVASCRIPT to true if everyone who may change watchers may run it"
    )
