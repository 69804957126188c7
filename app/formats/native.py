"""The native transcoder (Rust, in `native/`), where it was built: a batch of events in one call, without the GIL.

It is an option. `extended_json.py` is the reference: what is made here equals what is made there, and what is left
here, as None, is made there, or refused with its reason. So an event that cannot be encoded is the same one with
either.

Not its business: events that are to be reduced; which thread calls (the capture's).
"""

from collections.abc import Callable
from typing import Literal

from app.domain.events import Change

Wish = Literal["auto", "native", "python"]
Transcode = Callable[[list[bytes], str], list[Change | None]]


def absence() -> str | None:
    """Why the native transcoder is not to be had; None where it is."""
    try:
        import app._native  # noqa: F401 - whether it can be
    except ImportError as error:
        return f"it was not built, or not for this Python ({error})"
    return None


def transcoder(wish: Wish) -> Transcode | None:
    """The native transcoder where that is wished or, with `auto`, to be had.

    The function takes raw events and what follows the token in their ids (as `codec.encode` does), and returns, for
    each event in its place, the change, or None where it is left to `codec.encode`. It may be called in any thread, and
    raises MemoryError at most. Raises ImportError where only the native one would do and it is not there.
    """
    if wish == "python" or (wish == "auto" and absence() is not None):
        return None
    from app import _native

    def transcode(events: list[bytes], id_suffix: str) -> list[Change | None]:
        return _native.transcode(events, id_suffix, Change)

    return transcode
