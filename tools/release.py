"""The version, which stands in several files, and the changelog's section of a release. How to: docs/releasing.md.

    python tools/release.py version              print the version
    python tools/release.py prepare 0.2.0        write the version everywhere, and make a section of what is unreleased
    python tools/release.py check [v0.2.0]       is it the same everywhere, and with a tag: is it that, with a section?
    python tools/release.py notes 0.2.0          print the changelog's section, for the release on GitHub

Exit codes: 0; 1 with what does not fit, a line for each; 2 for wrong arguments. The standard library only: the release
workflow runs it before anything is installed.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path

ROOT = Path(__file__).parents[1]
VERSION = r"\d+\.\d+\.\d+"
"""What Python, Cargo and Helm write alike. A release candidate would be three different texts, so there are none."""

PLACES: dict[str, str] = {
    "pyproject.toml": rf'(?m)^version = "({VERSION})"$',
    "uv.lock": rf'(?m)^name = "changewire"\nversion = "({VERSION})"$',
    "native/Cargo.toml": rf'(?m)^name = "changewire-native"\nversion = "({VERSION})"$',
    "native/Cargo.lock": rf'(?m)^name = "changewire-native"\nversion = "({VERSION})"$',
    "openapi.json": rf'(?m)^    "version": "({VERSION})"$',
    "deploy/kubernetes/kustomization.yaml": rf"(?m)^    newTag: ({VERSION})$",
    "deploy/helm/changewire/Chart.yaml": rf"(?m)^version: ({VERSION})$",
    "deploy/helm/changewire/Chart.yaml ": rf'(?m)^appVersion: "({VERSION})"$',
}
"""Where the version stands: a file, with a space after its name where it is there twice, and what finds it."""

UNRELEASED = "## [Unreleased]"


class Unfit(Exception):
    """What does not fit, a line for each."""


def versions(root: Path) -> dict[str, str]:
    """The version that each place names. Raises Unfit where a place names none, or several."""
    found = {}
    for place, pattern in PLACES.items():
        named = re.findall(pattern, (root / place.strip()).read_text())
        if len(named) != 1:
            raise Unfit(f"{place.strip()}: the version stands there {len(named)} times; tools/release.py looks for one")
        found[place] = named[0]
    return found


def section(root: Path, version: str) -> tuple[date, str] | None:
    """When the version was released, and what the changelog says of it; None where it has no section."""
    text = (root / "CHANGELOG.md").read_text()
    match = re.search(rf"(?ms)^## \[{re.escape(version)}\] - (\d{{4}}-\d\d-\d\d)\n(.*?)(?=^## |\Z)", text)
    return None if match is None else (date.fromisoformat(match[1]), match[2].strip())


def check(root: Path, tag: str | None) -> str:
    """The version. Raises Unfit where places differ, or a tag does not fit the version and the changelog."""
    found = versions(root)
    version = found["pyproject.toml"]
    wrong = [
        f"{place.strip()} says {each}, pyproject.toml {version}" for place, each in found.items() if each != version
    ]
    if tag is not None:
        if tag != f"v{version}":
            wrong.append(f"the tag is {tag}, and pyproject.toml says {version}: tag v{version}")
        told = section(root, version)
        if told is None:
            wrong.append(
                f"CHANGELOG.md has no section of {version}: python tools/release.py prepare {version} makes it"
            )
        elif not told[1]:
            wrong.append(f"CHANGELOG.md says nothing under {version}")
    if wrong:
        raise Unfit("\n".join(wrong))
    return version


def prepare(root: Path, version: str, today: date) -> None:
    """Write the version into each place, and what is unreleased under its heading. Raises Unfit and changes nothing
    where the version has a section already, or there is nothing to release."""
    versions(root)
    changelog = root / "CHANGELOG.md"
    text = changelog.read_text()
    if section(root, version) is not None:
        raise Unfit(f"CHANGELOG.md has a section of {version} already")
    before, heading, rest = text.partition(f"{UNRELEASED}\n")
    unreleased = re.split(r"(?m)^## ", rest)[0].strip()
    if not heading or not unreleased:
        raise Unfit(f"CHANGELOG.md has nothing under {UNRELEASED}")
    for place, pattern in PLACES.items():
        path = root / place.strip()
        path.write_text(re.sub(pattern, lambda match: match[0].replace(match[1], version), path.read_text()))
    changelog.write_text(f"{before}{UNRELEASED}\n\n## [{version}] - {today.isoformat()}\n{rest}")


def main(arguments: Sequence[str], root: Path = ROOT) -> int:
    try:
        match list(arguments):
            case ["version"]:
                print(check(root, None))
            case ["check", *tag] if len(tag) < 2:
                print(f"{check(root, tag[0] if tag else None)} everywhere")
            case ["prepare", version] if re.fullmatch(VERSION, version):
                prepare(root, version, datetime.now(UTC).date())
                print(f"{version} is written; read CHANGELOG.md, commit, and tag v{version}")
            case ["notes", version]:
                told = section(root, version)
                if told is None:
                    raise Unfit(f"CHANGELOG.md has no section of {version}")
                print(told[1])
            case _:
                print(__doc__, file=sys.stderr)
                return 2
    except Unfit as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
