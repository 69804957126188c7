"""The native transcoder (Rust, in `native/`), where it was built: a batch of events in one call, without the GIL.

It is optional. `extended_json.py` is the reference: a body made here equals the one made there. An event that is left
out here, as None, is encoded there, or refused with the reason. So the same events cannot be encoded with either.
"""

from collections.abc import Callable, Sequence
from typing import Literal

from app.domain.events import Change

Wish = Literal["auto", "native", "python"]
Transcode = Callable[[Sequence[bytes], str], list[Change | None]]


def absence() -> str | None:
    """Why the native transcoder is unavailable; None if it is available."""
    try:
        import app._native  # noqa: F401 - whether it can be
    except ImportError as error:
        return f"it was not built, or not for this Python ({error})"
    return None


def transcoder(wish: Wish) -> Transcode | None:
    """The native transcoder, if the settings ask for it or, with `auto`, if it is available.

    The function takes raw events and the suffix of their ids (like `extended_json.encode`). It returns, for each event
    in its place, the change, or None if it is left to `extended_json.encode`. It may be called in any thread, and
    raises at most MemoryError. Raises ImportError if the native one is required and unavailable.
    """
    if wish == "python" or (wish == "auto" and absence() is not None):
        return None
    from app import _native

    def transcode(events: Sequence[bytes], id_suffix: str) -> list[Change | None]:
        return _native.transcode(events, id_suffix, Change)

    return transcode
