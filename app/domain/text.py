"""Text that no server accepts: half of a surrogate pair, which JSON and YAML can write and UTF-8 cannot.

Text is checked once, where it comes in (HTTP bodies, the configuration file, settings, arguments). After that every
string has a UTF-8 form.
"""

import json
from typing import Any

HALF = "holds half of a surrogate pair, which is not Unicode text"
_STEPS = 20_000
"""So many values are looked at to name the one; a body may hold hundreds of thousands."""


def is_text(text: str) -> bool:
    """Tell whether a string has a UTF-8 form."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def half_in(body: bytes) -> str | None:
    """Return the dotted path of a string or key in a JSON body that is no text, None where all are (or it is no JSON).

    Only an escape can be half of a pair, so a body without one is not parsed. The path is the nearest that was found
    in a bounded time, `body` at worst, and is text itself.
    """
    if b"\\ud" not in body and b"\\uD" not in body:
        return None
    try:
        document = json.loads(body)
        whole = is_text(json.dumps(document, ensure_ascii=False))
    except (ValueError, RecursionError):
        return None  # the parser reports it
    return None if whole else _path(document) or "body"


def shown(text: str) -> str:
    """Write text so that it can be shown: what is no text as an escape."""
    return text.encode("utf-8", "backslashreplace").decode()


def _path(document: Any) -> str | None:
    waiting: list[tuple[str, Any]] = [("", document)]
    for _ in range(_STEPS):
        if not waiting:
            return None
        path, value = waiting.pop()
        if isinstance(value, str) and not is_text(value):
            return path
        if isinstance(value, dict | list):
            steps = value.items() if isinstance(value, dict) else enumerate(value[:_STEPS])
            for step, inner in steps:
                below = f"{path}.{shown(str(step)[:100])}".lstrip(".")
                if isinstance(step, str) and not is_text(step):
                    return below
                if isinstance(inner, str | dict | list):
                    waiting.append((below, inner))
    return None
