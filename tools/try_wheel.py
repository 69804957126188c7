"""Run by `tools/wheel` with the Python of an environment that has the wheel, away from the checkout.

The commands start, all of them name one version, and an event is encoded natively, as the reference in Python does it.
"""

import json
import subprocess
import sys
from pathlib import Path

import bson

import app
from app.formats import extended_json, native


def printed(*arguments: str) -> str:
    """What the installed command prints; one that fails ends this with its exit code."""
    command = [str(Path(sys.executable).parent / "changewire"), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


assert "site-packages" in app.__file__, f"this is not the wheel's: {app.__file__}"
version = app.__version__
assert printed("--version") == f"changewire {version}\n"
assert "--rate" in printed("demo", "--help")
assert json.loads(printed("openapi"))["info"]["version"] == version

event = bson.encode(
    {
        "_id": {"_data": "82650000000000000000"},
        "operationType": "insert",
        "clusterTime": bson.Timestamp(1767225600, 1),
        "ns": {"db": "shop", "coll": "orders"},
        "documentKey": {"_id": 7},
        "fullDocument": {"_id": 7, "total": 12.5, "at": bson.ObjectId(b"twelve bytes")},
    }
)
transcode = native.transcoder("native")
assert transcode is not None
assert transcode([event], "") == [extended_json.encode(event, "")], "the native transcoder left the event to Python"
print(f"changewire {version}: installed, starts, encodes natively on Python {sys.version.split()[0]}")
