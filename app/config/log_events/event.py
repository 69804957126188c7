"""What there is to say about one log event."""

from typing import Final, NamedTuple

REPORT: Final = "This is an error of Changewire itself. Report it with the traceback and the lines before it."


class Event(NamedTuple):
    """One event. Level and fields stand where it is logged."""

    says: str
    """What has happened, as the reader of the log has to know it."""
    advice: str = ""
    """What to do. Empty for a fact with which nothing has to be done; a warning or an error always has it."""
