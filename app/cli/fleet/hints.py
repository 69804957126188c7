"""What to try while the demo of many watchers runs, with commands that can be typed as they stand."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from app.cli.fleet import plan
from app.cli.fleet.plan import FleetWatcher, Part
from app.cli.traffic import counted

MOST_SECONDS = 3600.0
"""How long the demo runs where nobody says how long: so what it writes is bounded."""


def hints(watchers: Sequence[FleetWatcher], base: str, rate: float, broken: Sequence[str], seconds: float) -> str:
    """What there is to see and to do. `base` is the page's address, `broken` the programs that are killed at
    times; the demo ends after so many `seconds`."""
    url = "" if base.endswith(":8080") else f" --url {base}"

    def command(*words: str) -> str:
        return f"  {program()} watchers {' '.join(words)}{url}"

    databases = plan.databases(watchers)
    scale = f"{counted(len(watchers), 'watcher')} of {counted(len(databases), 'database')}, {rate:g} writes a second."
    lines = [
        f"{scale} Watchers of one database share a change stream.",
        f"Open {base}/ in a browser: the watchers in trouble come first.",
        "Or try in another terminal:",
        "",
    ]
    for each in watchers:
        match each.part:
            case Part.FAILS if "nats-server" in broken:
                lines += [
                    f"Find the watcher that fails: soon the stream of {each.name} is deleted and created again.",
                    command("list", "--state", "failed"),
                    "Repair it: it publishes again what the oplog holds (on the page: Rewind).",
                    command("rewind", each.name, "--at", "earliest", "--yes"),
                    command("resume", each.name),
                ]
            case Part.PAUSED:
                lines += ["One is paused, and its changes wait:", command("resume", each.name)]
            case Part.LETTER:
                lines += ["One has a dead letter:", command("dead-letters", each.name)]
            case Part.SNAPSHOT:
                lines += ["One takes a snapshot now and then:", command("snapshot", each.name, "--follow")]
            case _:
                pass
    if broken:
        lines += ["", f"Now and then {' or '.join(broken)} is killed and started again. Nothing is lost."]
    lines += ["", f"Ctrl-C stops everything. The demo ends by itself after {seconds:,.0f} seconds.", ""]
    return "\n".join(lines)


def program() -> str:
    """How this command was started, so that the next one can be typed alike."""
    if Path(sys.argv[0]).name == "changewire":
        return os.path.relpath(sys.argv[0]) if os.sep in sys.argv[0] else "changewire"
    interpreter = sys.executable
    if interpreter.startswith(str(Path.cwd()) + os.sep):
        interpreter = os.path.relpath(interpreter)
    return f"{interpreter} -m app"
