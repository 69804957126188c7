"""The checks before a commit, in CI and in `make check` are the same, by the same tools."""

import os
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]


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


def test_the_workflow_runs_what_every_clone_can_run() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    (job,) = workflow["jobs"].values()
    assert job["timeout-minutes"] <= 60
    assert workflow["permissions"] == {"contents": "read"}
    used = [step["uses"] for step in job["steps"] if "uses" in step]
    assert [name.partition("@")[0] for name in used[:1]] == ["actions/checkout"]
    assert all(re.fullmatch(r"actions/[\w-]+@v\d+", name) for name in used), used
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
