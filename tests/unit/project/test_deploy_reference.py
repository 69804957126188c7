"""What deployments take from the code is what the code says, and the service takes it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from app.config.settings import load, variables
from tests.deploy_reference import ROOT, WRITTEN, env_example, file_variables, plain_variables

COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())


@pytest.mark.parametrize("path", WRITTEN)
def test_what_is_written_from_the_code_is_what_the_code_says(path: str) -> None:
    assert (ROOT / path).read_text() == WRITTEN[path](), "run: make docs"


def test_every_setting_is_in_the_example_and_nothing_else() -> None:
    named = re.findall(r"^#([A-Z_]+)=", env_example(), re.MULTILINE)
    assert sorted(named) == sorted(variables())


def test_a_copy_of_the_example_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(env_example())
    assert load(environ={}, dotenv=tmp_path / ".env") == load(environ={}, dotenv=tmp_path / "absent")


VALUES = dict(re.findall(r"^#([A-Z_]+)=(.+)$", env_example(), re.MULTILINE))


@pytest.mark.parametrize("name", sorted(VALUES.keys() - set(file_variables()) - {"CONFIG_FILE"}))
def test_what_the_example_says_of_a_setting_can_be_switched_on(name: str, tmp_path: Path) -> None:
    with_it = re.sub(rf"^#{name}=", f"{name}=", env_example(), flags=re.MULTILINE)
    if name == "CHANGEWIRE_NATS_USER":
        with_it += "CHANGEWIRE_NATS_PASSWORD=secret\n"
    (tmp_path / ".env").write_text(with_it)
    assert load(environ={}, dotenv=tmp_path / ".env").warnings == ()


def test_a_variable_is_plain_or_names_a_file_or_is_a_secret() -> None:
    secret = {name for name in variables() if f"{name}_FILE" in variables()}
    assert secret | set(plain_variables()) | set(file_variables()) == set(variables())
    assert secret.isdisjoint(plain_variables())
    assert secret.isdisjoint(file_variables())


def test_compose_takes_the_file_where_there_is_one_and_its_own_servers_win() -> None:
    service = COMPOSE["services"]["changewire"]
    assert service["env_file"] == [{"path": ".env", "required": False}]
    assert {"MONGO_URI", "NATS_URL", "SERVER_ADDR", "CHANGEWIRE_API_TOKEN"} == set(service["environment"])
