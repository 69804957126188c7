"""What a signal does to a command: an ending in one line, with 128 + the signal's number, and never a traceback.

`guard` is for imports and for all that has nothing to lose; `on_stop` takes over where something has to be finished.
Both set handlers of the process, not of the event loop: those are gone before the loop's last moments, and Ctrl-C would
raise KeyboardInterrupt again. Imports next to nothing, since it has to be in force before anything else is imported.
"""

import contextlib
import os
import signal
from collections.abc import Callable
from types import FrameType

WORDS = {
    signal.SIGINT: "interrupted",
    signal.SIGTERM: "terminated",
    signal.SIGHUP: "hung up",  # the terminal was closed
    signal.SIGQUIT: "quit",  # Ctrl-\
}
"""The signals that end a command, and what a person calls the end by each."""
_MAY_BE_IGNORED = frozenset({signal.SIGHUP, signal.SIGQUIT})
"""Those that stay ignored where the process was started so, as by nohup."""
_AT_ONCE = frozenset({signal.SIGINT, signal.SIGQUIT})
"""Those that somebody types who does not want to wait any longer."""


def exit_code(number: signal.Signals) -> int:
    """The exit code of a command that a signal ended, as shells count."""
    return 128 + number


def guard() -> None:
    """From now on each of these signals ends the process at once, with one line."""
    for number in _heeded():
        signal.signal(number, lambda got, _frame: _end(signal.Signals(got), ""))


def on_stop(
    stop: Callable[[signal.Signals], None],
    *,
    at_once: Callable[[], None] = lambda: None,
) -> None:
    """From now on the first signal calls `stop` in the running loop, and Ctrl-C after it ends the process at once.

    `at_once` is called before such an end: in the middle of anything, so it must not wait for locks.
    """
    import asyncio

    loop = asyncio.get_running_loop()
    terminals = [each for each in (1, 2) if os.isatty(each)]
    asked = False

    def handle(got: int, _frame: FrameType | None) -> None:
        nonlocal asked
        number = signal.Signals(got)
        if number is signal.SIGHUP:
            _leave(terminals)
        if not asked:
            asked = True
            with contextlib.suppress(RuntimeError):  # the loop is closed: it ends already
                loop.call_soon_threadsafe(stop, number)
        elif number in _AT_ONCE:
            try:
                at_once()
            finally:
                _end(number, " again, stopped at once")

    for number in _heeded():
        signal.signal(number, handle)


def _heeded() -> list[signal.Signals]:
    return [each for each in WORDS if each not in _MAY_BE_IGNORED or signal.getsignal(each) is not signal.SIG_IGN]


def _leave(terminals: list[int]) -> None:
    """Writing to a closed terminal is an error, and the end has things to print."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for each in terminals:
        os.dup2(nowhere, each)
    os.close(nowhere)


def _end(number: signal.Signals, how: str) -> None:
    # An exception would surface wherever the code happens to be: in an import, a destructor, a callback of a vendor.
    with contextlib.suppress(OSError):
        os.write(2, f"changewire: {WORDS[number]}{how}\n".encode())
    os._exit(exit_code(number))
