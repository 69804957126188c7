"""Alerts and dashboards: Prometheus takes them, each alert fires when it should, and its link into the runbook leads
somewhere."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.promql import DASHBOARDS, DEPLOY, RULES, Expression, alerts, of_dashboards

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def promtool() -> str:
    path = shutil.which(os.environ.get("CHANGEWIRE_TEST_PROMTOOL", "promtool")) or shutil.which("promtool")
    if path is None:
        pytest.skip("no promtool (Debian: prometheus); make test fetches it where it can")
    return path


def run(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_takes_the_configuration_and_the_rules(promtool: str) -> None:
    run(promtool, "check", "config", DEPLOY / "prometheus" / "prometheus.yml")
    run(promtool, "check", "rules", RULES)


def test_each_alert_fires_when_it_should_and_not_else(promtool: str) -> None:
    path = ROOT / "tests" / "alerts" / "changewire.test.yml"
    run(promtool, "test", "rules", path)
    cases = [case for test in yaml.safe_load(path.read_text())["tests"] for case in test["alert_rule_test"]]
    fire = {case["alertname"] for case in cases if case.get("exp_alerts")}
    quiet = {case["alertname"] for case in cases if not case.get("exp_alerts")}
    assert fire == quiet == {rule["alert"] for rule in alerts()}


def test_every_expression_of_the_dashboards_is_promql(promtool: str, tmp_path: Path) -> None:
    rules = [
        {"record": f"panel_{number}", "expr": re.sub(r"\$__\w+", "1m", each.text).replace("$", "")}
        for number, each in enumerate(of_dashboards())
    ]
    path = tmp_path / "panels.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    run(promtool, "check", "rules", path)


def test_each_alert_has_its_place_in_the_runbook() -> None:
    text = (ROOT / "docs" / "runbook.md").read_text()
    anchors = {f"docs/runbook.md#{title.lower()}" for title in re.findall(r"^## (\w+)$", text, re.MULTILINE)}
    assert {rule["annotations"]["runbook_url"] for rule in alerts()} == anchors
    for rule in alerts():
        assert rule["annotations"]["runbook_url"].endswith(f"#{rule['alert'].lower()}")
    for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        assert all(f"**{word}" in section for word in ("Means", "Look at", "Do"))


def test_the_dashboards_have_an_id_of_their_own_each_and_find_each_other() -> None:
    boards = {path.name: json.loads(path.read_text()) for path in DASHBOARDS}
    uids = {board["uid"] for board in boards.values()}
    assert len(uids) == len(boards) == 2
    for board in boards.values():
        assert {link["url"] for link in board["links"]} <= {f"/d/{uid}" for uid in uids}
        ids = [panel["id"] for panel in board["panels"]]
        assert len(set(ids)) == len(ids)
    compose = (ROOT / "compose.yaml").read_text()
    home = re.findall(r"HOME_DASHBOARD_PATH: /etc/changewire/dashboards/(\S+)", compose)
    assert set(home) <= set(boards)
    assert home


def test_expressions_are_taken_apart() -> None:
    text = 'sum by (a, le) (rate(m_total{b=~"$x,c=1", d!="e"}[$__rate_interval])) unless on (f) g == 1 or vector(0)'
    expression = Expression("", text, "{{a}} {{h}}")
    assert expression.metrics() == {"m_total": {"b", "d"}, "g": set()}
    assert expression.grouped() == {"a", "le", "f", "h"}
