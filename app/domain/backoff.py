"""How long to wait before trying again: exponential and capped; the watcher's task adds full jitter.

Full jitter (a uniform draw between nothing and the cap) spreads many watchers that lost the same server at once. The
draw is a parameter, so that this stays a pure function.
"""

FIRST_SECONDS = 0.2
LIMIT_SECONDS = 5.0
"""An attempt costs the servers little, and a watcher should continue soon after they are back."""


def delay(attempt: int, draw: float) -> float:
    """Return the seconds to wait before attempt `attempt` + 1 (`attempt` counts from 1).

    For `draw` in [0, 1]: random for jitter, 1.0 for none."""
    ceiling = min(LIMIT_SECONDS, FIRST_SECONDS * 2.0 ** min(attempt - 1, 30))
    return ceiling * draw
