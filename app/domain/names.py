"""What may be the name of a watcher, and what MongoDB accepts as that of a database or a collection.

Values only.
"""

from typing import Final

SYSTEM_DATABASES: Final = ("admin", "config", "local")
SYSTEM_COLLECTIONS: Final = "system."
"""What the names of MongoDB's own collections begin with."""
MAX_NAMESPACE: Final = 255
"""Bytes: MongoDB's limit for database, dot and collection together."""
MAX_DATABASE: Final = 63
"""Bytes."""
MAX_NAME: Final = 128
"""Characters of a watcher's name."""


def database_problem(name: str) -> str | None:
    if not name:
        return "is empty"
    if len(name.encode()) > MAX_DATABASE:
        return "is longer than the 63 bytes that MongoDB allows"
    if any(character in '/\\. "$\0' for character in name):
        return "holds a character that MongoDB does not allow in a database's name (/ \\ . \" $ a space or NUL)"
    if name in SYSTEM_DATABASES:
        return f"is {name}, a system database; use another one"
    return None


def collection_problem(database: str, name: str) -> str | None:
    if not name:
        return "is empty"
    if len(f"{database}.{name}".encode()) > MAX_NAMESPACE:
        shown = database[:MAX_DATABASE]
        return f"is too long: MongoDB allows {MAX_NAMESPACE} bytes for {shown}, a dot and the collection together"
    if "\0" in name or "$" in name or name.startswith(".") or name.endswith("."):
        return "is not a collection's name: no $, no NUL, no dot at either end"
    if name.startswith(SYSTEM_COLLECTIONS):
        return "is a system collection, which cannot be watched"
    return None


def name_problem(name: str) -> str | None:
    """Say in a sentence why `name` cannot name a watcher, or return None."""
    if not name or len(name) > MAX_NAME:
        return f"must have 1 to {MAX_NAME} characters"
    if name in (".", ".."):
        return "cannot be . or .., which have another meaning in a URL"
    if any(character in "/\\?#%" or character.isspace() or not character.isprintable() for character in name):
        return "may not hold a slash, ?, #, %, white space or a control character: it is part of a URL"
    return None


def apart(name: str, stream: str) -> str:
    """Return what a watcher, or its position's collection, is called beside another of its collection."""
    return f"{name}@{stream.replace('%', '_')}"
