"""A release: one version everywhere, a section of the changelog, and workflows and an image that are right."""

from __future__ import annotations

import json
import os
import re
import shutil
import tomllib
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml

import app
from app.api import openapi_document
from tests.linters import linter, output
from tools import release

ROOT = Path(__file__).parents[3]
WORKFLOWS = {path.stem: path for path in sorted((ROOT / ".github" / "workflows").glob("*.yml"))}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def steps(workflow: str) -> list[dict[str, Any]]:
    jobs = yaml.safe_load(WORKFLOWS[workflow].read_text())["jobs"]
    return [step for job in jobs.values() for step in job.get("steps", [])]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The files that a release changes, with something unreleased in the changelog."""
    for place in {place.strip() for place in release.PLACES}:
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / place, tmp_path / place)
    changelog = "# Changelog\n\n## [Unreleased]\n\n### Added\n\n- A thing.\n\n## [0.0.1] - 2026-11-01\n\n- The first.\n"
    (tmp_path / "CHANGELOG.md").write_text(changelog)
    return tmp_path


# One version


def test_the_version_is_the_same_everywhere_and_at_a_release_the_tag_and_the_changelog_have_it() -> None:
    tag = os.environ["GITHUB_REF_NAME"] if os.environ.get("GITHUB_REF_TYPE") == "tag" else None
    assert release.check(ROOT, tag) == PROJECT["version"]


def test_what_the_command_and_the_interface_say_is_the_version() -> None:
    assert openapi_document()["info"]["version"] == app.__version__ == PROJECT["version"]
    assert json.loads((ROOT / "openapi.json").read_text())["info"]["version"] == PROJECT["version"]


def test_a_checkout_that_was_never_installed_knows_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> str:
        raise ModuleNotFoundError(name)  # as PackageNotFoundError is one

    monkeypatch.setattr("importlib.metadata.PackageNotFoundError", ModuleNotFoundError)
    monkeypatch.setattr("importlib.metadata.version", absent)
    assert app.__version__ == PROJECT["version"]


def test_a_prepared_release_is_consistent_and_its_tag_fits(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    release.prepare(copy, "7.8.9", date(2026, 12, 1))
    assert release.check(copy, "v7.8.9") == "7.8.9"
    assert release.main(["notes", "7.8.9"], copy) == 0
    assert capsys.readouterr().out == "### Added\n\n- A thing.\n"
    headings = re.findall(r"^## (.*)$", (copy / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings == ["[Unreleased]", "[7.8.9] - 2026-12-01", "[0.0.1] - 2026-11-01"]
    for place in {place.strip() for place in release.PLACES}:
        changed = [
            (before, after)
            for before, after in zip(
                (ROOT / place).read_text().splitlines(), (copy / place).read_text().splitlines(), strict=True
            )
            if before != after
        ]
        assert all("7.8.9" in after for _, after in changed), place


def test_a_tag_that_is_not_the_version_or_has_no_section_is_refused(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert release.main(["check", "v9.9.9"], copy) == 1
    said = capsys.readouterr().err
    assert "the tag is v9.9.9" in said
    assert f"CHANGELOG.md has no section of {PROJECT['version']}" in said


def test_a_place_that_was_forgotten_is_named(copy: Path) -> None:
    release.prepare(copy, "7.8.9", date(2026, 12, 1))
    chart = copy / "deploy" / "helm" / "changewire" / "Chart.yaml"
    chart.write_text(chart.read_text().replace('appVersion: "7.8.9"', 'appVersion: "7.8.8"'))
    with pytest.raises(release.Unfit, match=r"Chart\.yaml says 7\.8\.8, pyproject\.toml 7\.8\.9"):
        release.check(copy, None)


@pytest.mark.parametrize("version", ["0.0.1", "7.8.9"])
def test_what_cannot_be_prepared_changes_nothing(version: str, copy: Path) -> None:
    """A version that there is, and one with nothing to tell."""
    if version == "7.8.9":
        (copy / "CHANGELOG.md").write_text(
            "# Changelog\n\n## [Unreleased]\n\n## [0.0.1] - 2026-11-01\n\n- The first.\n"
        )
    before = {path: path.read_text() for path in copy.rglob("*") if path.is_file()}
    assert release.main(["prepare", version], copy) == 1
    assert before == {path: path.read_text() for path in copy.rglob("*") if path.is_file()}


@pytest.mark.parametrize("arguments", [[], ["prepare"], ["prepare", "1.2"], ["prepare", "v1.2.3"], ["undo", "1.2.3"]])
def test_wrong_arguments_are_answered_with_the_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert release.main(arguments) == 2
    assert "prepare 0.2.0" in capsys.readouterr().err


def test_the_project_is_in_one_place() -> None:
    """Who publishes elsewhere changes all of these."""
    home = PROJECT["urls"]["Homepage"]
    assert all(url.startswith(home) for url in PROJECT["urls"].values())
    chart = ROOT / "deploy" / "helm" / "changewire"
    image = home.replace("https://github.com/", "ghcr.io/")
    assert yaml.safe_load((chart / "Chart.yaml").read_text())["home"] == home
    values = yaml.safe_load((chart / "values.yaml").read_text())
    assert values["image"]["repository"] == image
    assert values["prometheusRule"]["runbookUrl"].startswith(home)
    kustomization = yaml.safe_load((ROOT / "deploy" / "kubernetes" / "kustomization.yaml").read_text())
    assert kustomization["images"][0]["newName"] == image
    assert f'image.source="{home}"' in (ROOT / "Dockerfile").read_text()


def test_every_link_of_the_page_on_pypi_leads_somewhere_from_there() -> None:
    text = (ROOT / PROJECT["readme"]).read_text()
    links = re.findall(r"\]\(([^)]*)\)", text)
    home = PROJECT["urls"]["Homepage"]
    assert len(links) >= 3
    assert all(link.startswith(home) for link in links)
    within = [link.removeprefix(f"{home}/blob/main/") for link in links if link != home]
    assert [path for path in within if not (ROOT / path).exists()] == []
    assert f"COPY {PROJECT['readme']} " in (ROOT / "Dockerfile").read_text()
    assert f"!{PROJECT['readme']}\n" in (ROOT / ".dockerignore").read_text()


# The workflows


def test_the_workflows_and_the_shell_in_them_are_right() -> None:
    output(linter("actionlint"), "-shellcheck", linter("shellcheck"), *WORKFLOWS.values())


def test_the_shell_scripts_are_right() -> None:
    output(linter("shellcheck"), ROOT / "tools" / "install", ROOT / "tools" / "wheel", ROOT / ".ci" / "run")


def test_every_action_is_pinned_by_its_commit_the_same_everywhere_and_says_its_version() -> None:
    text = "".join(path.read_text() for path in WORKFLOWS.values())
    uses = re.findall(r"uses: (.*)", text)
    pinned = re.findall(r"uses: ([\w./-]+)@([0-9a-f]{40}) # (v\d+\.\d+\.\d+)$", text, re.MULTILINE)
    assert len(pinned) == len([each for each in uses if not each.startswith("./")])
    assert len(set(pinned)) == len({action for action, _, _ in pinned})


def test_no_job_may_more_than_it_needs_and_each_ends() -> None:
    for path in WORKFLOWS.values():
        workflow = yaml.safe_load(path.read_text())
        assert workflow["permissions"] == {"contents": "read"}
        assert all("timeout-minutes" in job or "uses" in job for job in workflow["jobs"].values())
        checkouts = [step for step in steps(path.stem) if step.get("uses", "").startswith("actions/checkout@")]
        assert all(step["with"]["persist-credentials"] is False for step in checkouts)


def test_a_rehearsal_publishes_nothing() -> None:
    jobs = yaml.safe_load(WORKFLOWS["release"].read_text())["jobs"]
    assert jobs["publish"]["if"] == "github.event_name == 'push'"
    publishing = [
        (name, step)
        for name, job in jobs.items()
        for step in job.get("steps", [])
        if re.search(r"publish|release create|helm push", step.get("run", "")) or "login" in step.get("uses", "")
    ]
    assert len(publishing) == 4
    assert all(name == "publish" or step["if"] == "github.event_name == 'push'" for name, step in publishing)
    (build,) = (step for step in steps("release") if "build-push-action" in step.get("uses", ""))
    assert build["with"]["push"] == "${{ github.event_name == 'push' }}"
    assert (build["with"]["sbom"], build["with"]["provenance"]) == (True, "mode=max")
    assert build["with"]["platforms"] == "linux/amd64,linux/arm64"


def test_what_is_published_has_passed_everything_before_it() -> None:
    jobs = yaml.safe_load(WORKFLOWS["release"].read_text())["jobs"]
    assert set(jobs["publish"]["needs"]) == jobs.keys() - {"publish"}
    assert {"test", "wheels"} <= set(jobs["image"]["needs"])


def test_the_wheels_are_those_that_make_builds_with_the_images_rust() -> None:
    text = WORKFLOWS["release"].read_text()
    wheels = yaml.safe_load(text)["jobs"]["wheels"]["strategy"]["matrix"]["include"]
    assert {each["arch"] for each in wheels} == {"x86_64", "aarch64"}
    assert all(f"manylinux_2_28_{each['arch']}:" in each["image"] for each in wheels)
    assert "make wheel" in text
    (rust,) = re.findall(r"^FROM rust:([\d.]+)-", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert yaml.safe_load(text)["env"]["RUST"] == rust


# The image


def test_the_dockerfile_is_clean() -> None:
    output(linter("hadolint"), ROOT / "Dockerfile")


def test_every_image_is_pinned_by_its_digest_and_renovate_finds_it() -> None:
    bases = re.findall(r"^FROM (\S+:\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"].values()
    composed = [each["image"] for each in services if "build" not in each]
    workflow = WORKFLOWS["release"].read_text()
    wheels = re.findall(r"image: (quay\S+)", workflow)
    assert (len(bases), len(composed), len(wheels)) == (2, 7, 2)
    for image in (*bases, *composed, *wheels):
        assert re.fullmatch(r"[\w./-]+:[\w.-]+@sha256:[0-9a-f]{64}", image), image
    config = json.loads((ROOT / "renovate.json").read_text())
    assert "docker:pinDigests" in config["extends"]
    assert {"dockerfile", "docker-compose", "github-actions", "custom.regex"} == set(config["enabledManagers"])
    (manager,) = config["customManagers"]
    (pattern,) = manager["matchStrings"]
    found = re.finditer(pattern.replace("(?<", "(?P<"), workflow)
    assert [f"{each['depName']}:{each['currentValue']}@{each['currentDigest']}" for each in found] == wheels


def test_each_base_of_the_image_is_named_once() -> None:
    """So that it is one digest that changes."""
    text = (ROOT / "Dockerfile").read_text()
    images = re.findall(r"^FROM (\S+:\S+)", text, re.MULTILINE)
    stages = re.findall(r" AS (\w+)$", text, re.MULTILINE)
    assert len(images) == len(set(images)) == 2
    assert set(re.findall(r"--from=(\S+)", text)) <= set(stages)
