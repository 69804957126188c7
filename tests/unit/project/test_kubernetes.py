"""The manifests: Kubernetes takes them, they fit together, and what they say of the service is true of it."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from app.config.settings import load, variables
from app.metrics.families import Families

ROOT = Path(__file__).parents[3]
DIRECTORY = ROOT / "deploy" / "kubernetes"
MANIFESTS: dict[str, dict[str, Any]] = {
    path.stem: yaml.safe_load(path.read_text()) for path in sorted(DIRECTORY.glob("*.yaml"))
}
NOT_KUBERNETES_OWN = ("kustomization", "podmonitor", "prometheusrule")
POD = MANIFESTS["deployment"]["spec"]["template"]
CONTAINER = POD["spec"]["containers"][0]
SETTINGS: dict[str, str] = MANIFESTS["settings"]["data"]
FROM_FILES = {each["name"]: each["value"] for each in CONTAINER["env"] if "value" in each}
PROBES = ("startupProbe", "livenessProbe", "readinessProbe")


@pytest.mark.parametrize("version", ["1.25", kubernetes_validate.latest_version()])
@pytest.mark.parametrize("name", [name for name in MANIFESTS if name not in NOT_KUBERNETES_OWN])
def test_kubernetes_knows_every_field(name: str, version: str) -> None:
    kubernetes_validate.validate(MANIFESTS[name], version, strict=True)


def test_the_kustomization_names_every_manifest_the_optional_ones_in_comments() -> None:
    text = (DIRECTORY / "kustomization.yaml").read_text()
    named = set(re.findall(r"- (\w+)\.yaml", text))
    assert named == MANIFESTS.keys() - {"kustomization"}
    left_out = named - {Path(each).stem for each in MANIFESTS["kustomization"]["resources"]}
    assert left_out == {"hpa", "networkpolicy", "podmonitor", "prometheusrule"}


def test_the_operator_gets_the_alerts_of_prometheus() -> None:
    rules = yaml.safe_load((ROOT / "deploy" / "prometheus" / "rules" / "changewire.yml").read_text())
    assert MANIFESTS["prometheusrule"]["spec"] == rules


def test_each_dashboard_is_a_config_map_for_grafanas_sidecar() -> None:
    directory = ROOT / "deploy" / "grafana"
    generated = yaml.safe_load((directory / "kustomization.yaml").read_text())
    files = [file for each in generated["configMapGenerator"] for file in each["files"]]
    assert sorted(files) == sorted(f"dashboards/{path.name}" for path in (directory / "dashboards").glob("*.json"))
    assert generated["generatorOptions"]["labels"] == {"grafana_dashboard": "1"}
    assert "# - ../grafana\n" in (DIRECTORY / "kustomization.yaml").read_text()


def test_the_service_takes_what_the_manifests_set(tmp_path: Path) -> None:
    values = {"mongo-uri": "mongodb://mongo.example/?replicaSet=rs0", "nats-url": "nats://nats", "api-token": "secret"}
    environ = dict(SETTINGS)
    for name, path in FROM_FILES.items():
        file = tmp_path / Path(path).name
        file.write_text(values[file.name])
        environ[name] = str(file)
    assert environ.keys() <= set(variables())
    settings = load(environ=environ, dotenv=tmp_path / ".env")
    assert settings.warnings == ()
    assert settings.api_token is not None
    (port,) = CONTAINER["ports"]
    assert settings.port == port["containerPort"]
    assert settings.drain_seconds < POD["spec"]["terminationGracePeriodSeconds"]


def test_each_pod_is_an_instance_of_its_own_name(tmp_path: Path) -> None:
    (named,) = (each for each in CONTAINER["env"] if each["name"] == "CHANGEWIRE_INSTANCE")
    assert named["valueFrom"] == {"fieldRef": {"fieldPath": "metadata.name"}}
    pod = "changewire-7d4b9c6f5d-x2x9k"
    assert load(environ={"CHANGEWIRE_INSTANCE": pod}, dotenv=tmp_path / ".env").instance == pod
    deployment = MANIFESTS["deployment"]["spec"]
    assert deployment["replicas"] >= 2
    assert deployment["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}


def test_the_autoscaler_scales_the_deployment_by_a_metric_that_the_page_makes_of_the_services() -> None:
    scaler = MANIFESTS["hpa"]["spec"]
    deployment = MANIFESTS["deployment"]
    target = scaler["scaleTargetRef"]
    assert (target["kind"], target["name"]) == (deployment["kind"], deployment["metadata"]["name"])
    assert scaler["minReplicas"] >= MANIFESTS["poddisruptionbudget"]["spec"]["maxUnavailable"] + 1
    (metric,) = scaler["metrics"]
    page = (ROOT / "docs" / "kubernetes.md").read_text()
    (rules,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    (rule,) = yaml.safe_load(rules)["rules"]["custom"]
    assert rule["name"]["as"] == metric["pods"]["metric"]["name"]
    assert rule["seriesQuery"].partition("{")[0] in {family.name for family in Families()}


def test_no_variable_of_a_service_is_taken_for_a_setting() -> None:
    name = f"{MANIFESTS['service']['metadata']['name'].upper()}_SERVICE_HOST"
    assert load(environ={name: "10.0.0.1"}, dotenv=Path("absent")).warnings
    assert POD["spec"]["enableServiceLinks"] is False


def test_secrets_are_mounted_where_they_are_looked_for_and_written_as_the_page_says() -> None:
    (mount,) = CONTAINER["volumeMounts"]
    (volume,) = POD["spec"]["volumes"]
    assert mount["name"] == volume["name"]
    assert {str(Path(path).parent) for path in FROM_FILES.values()} == {mount["mountPath"]}
    page = (ROOT / "docs" / "kubernetes.md").read_text()
    assert f"secret generic {volume['secret']['secretName']}" in page
    assert {Path(path).name for path in FROM_FILES.values()} == set(re.findall(r"--from-literal=([\w-]+)=", page))


def test_probes_and_scrapes_ask_for_paths_and_ports_that_there_are() -> None:
    paths = json.loads((ROOT / "openapi.json").read_text())["paths"]
    (port,) = CONTAINER["ports"]
    for probe in PROBES:
        asked = CONTAINER[probe]["httpGet"]
        assert "get" in paths[asked["path"]], probe
        assert asked["port"] == port["name"], probe
    assert CONTAINER["livenessProbe"]["httpGet"]["path"] == "/livez"
    (endpoint,) = MANIFESTS["podmonitor"]["spec"]["podMetricsEndpoints"]
    assert "get" in paths[endpoint["path"]]
    assert endpoint["port"] == port["name"]
    assert MANIFESTS["service"]["spec"]["ports"][0]["targetPort"] == port["name"]
    assert MANIFESTS["networkpolicy"]["spec"]["ingress"][0]["ports"][0]["port"] == port["name"]


def test_every_selector_finds_the_pods() -> None:
    labels = POD["metadata"]["labels"]
    selectors = [
        MANIFESTS["service"]["spec"]["selector"],
        MANIFESTS["networkpolicy"]["spec"]["podSelector"]["matchLabels"],
        POD["spec"]["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"],
        *(
            MANIFESTS[name]["spec"]["selector"]["matchLabels"]
            for name in ("deployment", "poddisruptionbudget", "podmonitor")
        ),
    ]
    assert all(selector == labels for selector in selectors)


def test_the_scrape_job_has_the_name_that_the_alerts_ask_for() -> None:
    label = MANIFESTS["podmonitor"]["spec"]["jobLabel"]
    jobs = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
    assert POD["metadata"]["labels"][label] in {job["job_name"] for job in jobs}


def test_user_and_tag_are_those_of_the_image() -> None:
    user, group = re.findall(r"^USER (\d+):(\d+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)[0]
    context = POD["spec"]["securityContext"]
    assert (context["runAsUser"], context["runAsGroup"]) == (int(user), int(group))
    (image,) = MANIFESTS["kustomization"]["images"]
    assert image["name"] == CONTAINER["image"]
    assert image["newTag"] == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def test_a_container_has_no_more_rights_than_it_needs() -> None:
    assert POD["spec"]["securityContext"]["runAsNonRoot"]
    assert POD["spec"]["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert CONTAINER["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert POD["spec"]["automountServiceAccountToken"] is False
    assert MANIFESTS["serviceaccount"]["automountServiceAccountToken"] is False
    assert POD["spec"]["serviceAccountName"] == MANIFESTS["serviceaccount"]["metadata"]["name"]


def test_one_instance_stays_while_nodes_are_drained_and_versions_change() -> None:
    spec = MANIFESTS["deployment"]["spec"]
    assert spec["replicas"] > MANIFESTS["poddisruptionbudget"]["spec"]["maxUnavailable"] == 1
    assert spec["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
