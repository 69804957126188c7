"""The checks before a commit, in CI and in `make check` are the same, by the same tools."""

import os
import re
import subprocess
import tomllib
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
DECISIONS = sorted((ROOT / "docs" / "decisions").glob("0*.md"))
INDEX = ROOT / "docs" / "decisions" / "README.md"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def recipe(target: str) -> str:
    found = re.search(rf"^{target}:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert found is not None
    return found.group(1)


def hooks() -> list[dict[str, Any]]:
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert repository["repo"] == "local"
    return list(repository["hooks"])


def test_what_is_checked_before_a_commit_is_what_make_check_checks() -> None:
    tools = {Path(hook["entry"].split()[0]).name for hook in hooks()}
    assert tools == set(re.findall(r"\$\(BIN\)/([\w-]+)", recipe("check")))
    assert all(hook["entry"].startswith(".venv/bin/") for hook in hooks()), "another version would check otherwise"


@pytest.mark.parametrize("tool", ["ruff", "mypy", "import-linter", "codespell"])
def test_each_tool_is_locked(tool: str) -> None:
    names = [re.split(r"[><=]", each)[0] for each in PROJECT["dependency-groups"]["dev"] if isinstance(each, str)]
    assert tool in names
    assert f'\nname = "{tool}"\n' in (ROOT / "uv.lock").read_text()


def test_no_module_has_more_than_400_lines() -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in (ROOT / "app").rglob("*.py")}
    assert len(lengths) > 100
    assert {str(path.relative_to(ROOT)): lines for path, lines in lengths.items() if lines > 400} == {}


def test_only_pictures_are_kept_as_binaries() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a clone")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout
    paths = [Path(os.fsdecode(name)) for name in listed.split(b"\0") if name]
    assert len(paths) > 800
    binaries = {path for path in paths if (ROOT / path).is_file() and b"\0" in (ROOT / path).read_bytes()}
    assert {path for path in binaries if path.parent != Path("docs/images")} == set()


def test_the_workflow_runs_what_every_clone_can_run() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    assert workflow["permissions"] == {"contents": "read"}
    commands = {"run": [".ci/run"], "coverage": ["make coverage"], "wheel": ["make wheel"]}
    assert commands == {
        name: [step["run"] for step in job["steps"] if "run" in step] for name, job in workflow["jobs"].items()
    }
    assert all(job["timeout-minutes"] <= 90 for job in workflow["jobs"].values())
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_the_changelog_keeps_its_form() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    first, *releases = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert first == "[Unreleased]"
    dates = [re.fullmatch(r"\[\d+\.\d+\.\d+\] - (\d{4}-\d\d-\d\d)", each) for each in releases]
    assert all(dates), releases
    kinds = set(re.findall(r"^### (.*)$", text, re.MULTILINE))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


@pytest.mark.parametrize("page", DECISIONS, ids=lambda page: page.name[:4])
def test_a_decision_has_a_date_and_a_status_as_the_index_says(page: Path) -> None:
    head = "\n".join(page.read_text().splitlines()[:6])
    day, status = re.search(r"^Date: (\S+?)\\?$", head, re.MULTILINE), re.search(r"^Status: (.+)$", head, re.MULTILINE)
    assert day is not None
    assert status is not None
    assert date.fromisoformat(day.group(1)) >= date(2026, 11, 23)
    assert re.fullmatch(r"accepted|superseded by \[\d{4}\]\(\d{4}[\w-]*\.md\)", status.group(1))
    rows = [row for row in INDEX.read_text().splitlines() if f"]({page.name})" in row]
    assert [row.endswith(f"| {day.group(1)} | {status.group(1)} |") for row in rows] == [True]
