"""What people read is in plain modern English, with one word for each thing.

The words below are refused in the places below. A line with an identifier that has to stay (a fault's name, a stored
name) is exempt by `KEPT`. Decisions and the changelog tell of the past, and are left out.
"""

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]

PLACES = (
    "*.md", "Makefile", "Dockerfile", "compose.yaml", ".github/**/*.yml", "docs/*.md", "deploy/**/*.y*ml",
    "examples/**/*.py", "examples/**/*.go", "native/src/*.rs", "tools/*", ".ci/*", "bench/*.py",
    "app/**/*.py", "app/api/page/*.js", "app/api/page/*.html", "tests/**/*.py",
)  # fmt: skip
LEFT_OUT = {"CHANGELOG.md", Path(__file__).name}

INSTEAD = {
    r"whoever": "anyone who, a client that",
    r"anew": "again, recreated",
    r"for ever": "indefinitely",
    r"mend(s|ed|ing)?": "fix, repair",
    r"(not )?to be had": "unavailable, available",
    r"can be had": "is available",
    r"of before": "previous, last known",
    r"stands? still": "is paused, does not move",
    r"gone past": "already published",
    r"none of ours": "not the watcher's own",
    r"(the|a) predecessor('s)?": "mongodb-nats-connector, the previous one",
    r"letter desk": "dead-letter queue",
    r"stream desk": "stream browser",
    r"conveyor": "batch queue",
    r"roster": "reconciler",
    r"checkup": "doctor",
    r"audit trail": "audit log",
    r"what is there already": "what is already published",
}
"""What is refused, as a pattern between word boundaries, and what to write in its place."""
REFUSED = [(re.compile(rf"\b{pattern}\b", re.IGNORECASE), better) for pattern, better in INSTEAD.items()]
KEPT = re.compile(r"stream[-_]anew[-_]|ANEW_")


def places() -> list[Path]:
    found = {path for pattern in PLACES for path in ROOT.glob(pattern) if path.is_file()}
    return sorted(path for path in found if path.name not in LEFT_OUT and "vendor" not in path.parts)


def test_no_word_is_refused() -> None:
    assert [
        f"{path.relative_to(ROOT)}:{number}: {match.group()!r}; rather: {better}"
        for path in places()
        for number, line in enumerate(path.read_text().splitlines(), 1)
        for pattern, better in REFUSED
        if (match := pattern.search(KEPT.sub("", line)))
    ] == []


def test_the_places_are_there() -> None:
    assert len(places()) > 100
    assert [pattern for pattern in PLACES if not any(ROOT.glob(pattern))] == []
