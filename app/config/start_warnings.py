"""What looks like a mistake in the settings and does not keep the service from starting."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from difflib import get_close_matches

from app.config.api_tokens import Token
from app.config.variables import ELSEWHERE, MISTAKEN, PREFIX, variable


def unknown_variables(given: Iterable[str], known: Collection[str]) -> Iterator[str]:
    """Say which variables look like settings and are none, and which setting may be meant."""
    known, given = {*known, *ELSEWHERE}, set(given)
    tails = [each.removeprefix(PREFIX) for each in known if each.startswith(PREFIX)]
    for name in sorted(given):
        if name.startswith(PREFIX) and name not in known:
            near = get_close_matches(name.removeprefix(PREFIX), tails, n=1)
            yield f"{name} is not a setting" + (f"; did you mean {PREFIX}{near[0]}?" if near else "")
        elif name in MISTAKEN and MISTAKEN[name] not in given:
            yield f"{name} is not read; the setting is {MISTAKEN[name]}"


def useless_tokens(tokens: Sequence[Token], *, allow_anonymous: bool, named: str) -> Iterator[str]:
    """Say where tokens and the other settings do not go together. `named` is the setting that holds the tokens."""
    if allow_anonymous and tokens:
        yield f"{variable('allow_anonymous')} has no effect where {variable(named)} is set"
    if tokens and all(token.role == "read" for token in tokens):
        yield f"no token in {variable('api_tokens')} has the role write; nothing can be changed over HTTP"
