"""Who may call: the named tokens of the settings, and what each may do.

`parse` reads what CHANGEWIRE_API_TOKENS or its file holds; `find` tells whose token a request carries. A sentence about
what is wrong never repeats a part of it, since a token may stand in an unexpected place. Which call needs which role is
decided in `api/auth.py`.
"""

import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

Role = Literal["read", "write"]

ANONYMOUS = "anonymous"
API = "api"
"""The name of the token in CHANGEWIRE_API_TOKEN."""
SHORTEST = 16
"""Characters: a shorter token could be guessed, and taking it out of log lines would tear ordinary words apart."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_PRINTABLE = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True, slots=True)
class Token:
    """A token with the name that stands for it in the log, and what it may do. `write` may read too."""

    name: str
    role: Role
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: a token's name, or `anonymous`. `role` is None without a token that is known."""

    name: str = ANONYMOUS
    role: Role | None = None


def parse(text: str) -> tuple[Token, ...]:
    """Read `name:role:token`, separated by commas or on lines of their own; lines that begin with # are comments.

    Raises ValueError with a sentence that tells the entry by its place.
    """
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    entries = [entry for line in lines for each in line.split(",") if (entry := each.strip())]
    found: list[Token] = []
    for place, entry in enumerate(entries, 1):
        parts = entry.split(":", 2)
        if len(parts) != 3:
            raise ValueError(f"entry {place} is not name:role:token")
        name, role, secret = (part.strip() for part in parts)
        if not _NAME.fullmatch(name):
            raise ValueError(f"entry {place} has a name that is not letters, digits, dots, dashes or underscores")
        if role not in get_args(Role):
            raise ValueError(f"entry {place} has a role that is neither read nor write")
        if name == ANONYMOUS:
            raise ValueError(f"entry {place} is named {ANONYMOUS}, as requests without a token are")
        if not _PRINTABLE.fullmatch(secret):
            raise ValueError(f"entry {place} has a token that is not printable ASCII without spaces")
        if len(secret) < SHORTEST:
            raise ValueError(f"entry {place} has a token of less than {SHORTEST} characters, which could be guessed")
        found.append(Token(name, "read" if role == "read" else "write", secret))
    if not found:
        raise ValueError("holds no name:role:token")
    return tuple(found)


def check_secret(secret: str) -> None:
    """Raise ValueError with a sentence where a token cannot travel in a header."""
    if not _PRINTABLE.fullmatch(secret):
        raise ValueError("may hold printable ASCII characters only, without spaces: it travels in a header")


def all_tokens(api_token: str | None, api_tokens: str | None) -> tuple[Token, ...]:
    """Return the tokens of both settings, that of CHANGEWIRE_API_TOKEN first. Raises ValueError as `parse`."""
    own = () if api_token is None else (Token(API, "write", api_token),)
    return (*own, *(() if api_tokens is None else parse(api_tokens)))


def clash(tokens: Sequence[Token]) -> str | None:
    """Say which two tokens cannot be told apart, or return None."""
    for place, one in enumerate(tokens):
        for other in tokens[:place]:
            if one.name == other.name:
                return f"two tokens are named {one.name}"
            if one.secret == other.secret:
                return f"{other.name} and {one.name} have the same token"
    return None


def find(tokens: Sequence[Token], given: bytes) -> Token | None:
    """Return whose token this is. Takes the same time whichever it is, and however much of it is right."""
    found = None
    for token in tokens:
        if hmac.compare_digest(given, token.secret.encode()):
            found = token
    return found
