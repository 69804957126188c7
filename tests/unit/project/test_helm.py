"""The chart: Helm takes it, Kubernetes takes what it makes, and that is what the manifests say."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from app.config.settings import load
from tests.linters import linter, output

ROOT = Path(__file__).parents[3]
CHART = ROOT / "deploy" / "helm" / "changewire"
MANIFESTS = ROOT / "deploy" / "kubernetes"
OPTIONAL = ("podMonitor", "prometheusRule", "dashboards", "autoscaling", "networkPolicy")
EVERYTHING = ["--set", ",".join(f"{each}.enabled=true" for each in OPTIONAL)]
OPERATORS = ("PodMonitor", "PrometheusRule")
HELMS = ("app.kubernetes.io/instance", "app.kubernetes.io/version", "app.kubernetes.io/managed-by", "helm.sh/chart")
"""Labels that Helm's charts have by custom; without `instance` two releases would find each other's pods."""

Object = dict[str, Any]


def rendered(
    *arguments: str | Path, release: str = "changewire", version: str = "1.34", chart: Path = CHART
) -> dict[tuple[str, str], Object]:
    """What the chart makes, by kind and name."""
    text = output(
        linter("helm"), "template", release, chart, "--namespace", "changewire", "--kube-version", version, *arguments
    )
    objects = [each for each in yaml.safe_load_all(text) if each is not None]
    return {(each["kind"], each["metadata"]["name"]): each for each in objects}


def refused(*arguments: str | Path) -> str:
    return output(linter("helm"), "template", CHART, "--kube-version", "1.34", *arguments, refused=True)


def essence(value: Any) -> Any:
    """An object without what Helm adds: labels of its own, the annotation that replaces pods. The order of what has a
    name, such as variables, says nothing."""
    if isinstance(value, list):
        named = all(isinstance(each, dict) and "name" in each for each in value)
        return [essence(each) for each in (sorted(value, key=lambda each: each["name"]) if named else value)]
    if not isinstance(value, dict):
        return value
    kept = {key: essence(each) for key, each in value.items() if key not in HELMS and key != "checksum/settings"}
    return {key: each for key, each in kept.items() if not (key in ("annotations", "labels") and each == {})}


def bare(labelled: Object) -> Object:
    """An object without its labels: kustomize adds those of `kustomization.yaml`."""
    metadata = {key: each for key, each in labelled["metadata"].items() if key != "labels"}
    return essence({**labelled, "metadata": metadata})


def test_helm_finds_nothing_to_say() -> None:
    said = output(linter("helm"), "lint", "--strict", "--kube-version", "1.34", CHART)
    assert re.findall(r"\[(?:WARNING|ERROR)\].*", said) == []


@pytest.mark.parametrize("version", ["1.25", kubernetes_validate.latest_version()])
def test_kubernetes_knows_every_field_of_what_is_made(version: str, tmp_path: Path) -> None:
    values = tmp_path / "values.yaml"
    values.write_text(yaml.safe_dump(MANY_VALUES))
    for arguments in ([], EVERYTHING, [*EVERYTHING, "--values", values]):
        made = rendered(*arguments, version=version)
        assert len(made) >= 5
        for (kind, _), each in made.items():
            if kind not in OPERATORS:
                kubernetes_validate.validate(each, version, strict=True)


def test_the_chart_makes_what_the_manifests_say() -> None:
    made = rendered(*EVERYTHING, "--set", "prometheusRule.runbookUrl=")
    written = {path.stem: yaml.safe_load(path.read_text()) for path in MANIFESTS.glob("*.yaml")}
    kustomization = written.pop("kustomization")
    (image,) = kustomization["images"]
    container = written["deployment"]["spec"]["template"]["spec"]["containers"][0]
    container["image"] = f"{image['newName']}:{image['newTag']}"
    del written["deployment"]["spec"]["replicas"]  # the autoscaler decides
    for each in written.values():
        assert bare(made.pop((each["kind"], each["metadata"]["name"]))) == bare(each), each["kind"]
    assert {kind for kind, _ in made} == {"ConfigMap"}
    generator = yaml.safe_load((ROOT / "deploy" / "grafana" / "kustomization.yaml").read_text())
    assert {name for _, name in made} == {each["name"] for each in generator["configMapGenerator"]}
    for each in generator["configMapGenerator"]:
        (file,) = each["files"]
        path = ROOT / "deploy" / "grafana" / file
        board = made["ConfigMap", each["name"]]
        assert {name: json.loads(text) for name, text in board["data"].items()} == {
            path.name: json.loads(path.read_text())
        }
        assert generator["generatorOptions"]["labels"].items() <= board["metadata"]["labels"].items()


def test_without_the_autoscaler_there_are_as_many_instances_as_the_manifests_have() -> None:
    deployment = yaml.safe_load((MANIFESTS / "deployment.yaml").read_text())
    assert rendered()["Deployment", "changewire"]["spec"]["replicas"] == deployment["spec"]["replicas"]


def test_two_releases_in_one_namespace_keep_apart() -> None:
    one, two = rendered(release="one"), rendered(release="two")
    assert one.keys().isdisjoint(two)
    selectors = [
        each["Deployment", f"{name}-changewire"]["spec"]["selector"] for name, each in (("one", one), ("two", two))
    ]
    assert selectors[0] != selectors[1]
    for name, each in (("one", one), ("two", two)):
        pods = each["Deployment", f"{name}-changewire"]["spec"]["template"]["metadata"]["labels"]
        for kind, found in (
            ("Service", each["Service", f"{name}-changewire"]["spec"]["selector"]),
            (
                "PodDisruptionBudget",
                each["PodDisruptionBudget", f"{name}-changewire"]["spec"]["selector"]["matchLabels"],
            ),
        ):
            assert found.items() <= pods.items(), kind


def test_the_service_takes_what_the_chart_sets(tmp_path: Path) -> None:
    made = rendered()
    container = made["Deployment", "changewire"]["spec"]["template"]["spec"]["containers"][0]
    environ = dict(made["ConfigMap", "changewire-settings"]["data"])
    secrets = {"mongo-uri": "mongodb://mongo.example/?replicaSet=rs0", "nats-url": "nats://nats", "api-token": "t" * 16}
    for each in container["env"]:
        if "value" in each:
            file = tmp_path / Path(each["value"]).name
            file.write_text(secrets[file.name])
            environ[each["name"]] = str(file)
    settings = load(environ=environ, dotenv=tmp_path / "absent")
    assert settings.warnings == ()
    assert settings.port == container["ports"][0]["containerPort"]


def test_the_page_installs_what_there_is() -> None:
    page = (ROOT / "docs" / "kubernetes.md").read_text()
    (command,) = re.findall(r"^helm install changewire deploy/helm/changewire ((?:.*\\\n)*.*)$", page, re.MULTILINE)
    made = rendered(*command.replace("\\\n", " ").split())
    assert {kind for kind, _ in made} >= {"Deployment", "PodMonitor", "PrometheusRule", "ConfigMap"}
    container = made["Deployment", "changewire"]["spec"]["template"]["spec"]["containers"][0]
    assert container["image"].startswith("registry.example/changewire:")
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    for text in (page, (CHART / "README.md").read_text()):
        assert f"create secret generic {values['secret']['name']} " in text
        assert set(re.findall(r"--from-literal=([\w-]+)=", text)) == set(values["secret"]["files"].values())


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ("settings.MONGO_URI=mongodb://user:password@host", "'MONGO_URI' not allowed"),
        ("settings.CHANGEWIRE_API_TOKEN=secret", "'CHANGEWIRE_API_TOKEN' not allowed"),
        ("secret.files.MONGO_URI=mongo-uri", "'MONGO_URI' not allowed"),
        ("settings.CHANGEWIRE_BATCHSIZE=500", "'CHANGEWIRE_BATCHSIZE' not allowed"),
        ("replicas=3", "'replicas' not allowed"),
        ("settings.CHANGEWIRE_WEIGHT=2", "got number, want string"),
        ("image.digest=sha256:0", "does not match pattern"),
        ("podMonitor.interval=soon", "does not match pattern"),
    ],
)
def test_a_value_that_is_secret_or_misspelt_is_refused_by_its_name(values: str, said: str) -> None:
    assert said in refused("--set", values)


def test_every_value_is_in_the_schema_and_every_name_in_the_schema_has_a_value() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())["properties"]
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert values.keys() == schema.keys() - {"global"}
    for name, value in values.items():
        if isinstance(value, dict) and name not in ("settings", "resources") and "properties" in schema[name]:
            assert value.keys() == schema[name]["properties"].keys(), name


MANY_VALUES: Object = {
    "fullnameOverride": "relay",
    "podSecurityContext": {"runAsUser": None, "runAsGroup": None, "fsGroup": None},  # as OpenShift wants it
    "image": {"digest": f"sha256:{'0' * 64}"},
    "imagePullSecrets": [{"name": "registry"}],
    "secret": {
        "name": "elsewhere",
        "files": {
            "CHANGEWIRE_TLS_CERT": "tls.crt",
            "CHANGEWIRE_TLS_KEY": "tls.key",
            "CHANGEWIRE_NATS_CREDS": "nats.creds",
        },
        "revision": "2",
    },
    "connectorYaml": "server:\n  addr: 0.0.0.0:8080\n",
    "extraEnv": [{"name": "TZ", "value": "UTC"}],
    "extraVolumes": [{"name": "ca", "configMap": {"name": "ca"}}],
    "extraVolumeMounts": [{"name": "ca", "mountPath": "/etc/ca"}],
    "podAnnotations": {"example": "yes"},
    "podLabels": {"team": "data"},
    "nodeSelector": {"kubernetes.io/arch": "arm64"},
    "tolerations": [{"key": "relay", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
    "priorityClassName": "high",
    "serviceAccount": {"create": False},
    "service": {"type": "LoadBalancer", "port": 443, "annotations": {"example": "yes"}},
}


def test_what_an_operator_sets_is_in_the_pod(tmp_path: Path) -> None:
    values = tmp_path / "values.yaml"
    values.write_text(yaml.safe_dump(MANY_VALUES))
    made = rendered("--values", values)
    pod = made["Deployment", "relay"]["spec"]["template"]
    container = pod["spec"]["containers"][0]
    assert container["image"].endswith(f"@sha256:{'0' * 64}")
    assert {container[probe]["httpGet"]["scheme"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")} == {
        "HTTPS"
    }
    set_here = {each["name"]: each.get("value") for each in container["env"]}
    assert set_here["CHANGEWIRE_TLS_CERT"] == "/etc/changewire/secrets/tls.crt"
    assert set_here["CONFIG_FILE"] == "/etc/changewire/connector/connector.yaml"
    assert made["ConfigMap", "relay-connector"]["data"] == {"connector.yaml": MANY_VALUES["connectorYaml"]}
    mounts = {each["name"] for each in container["volumeMounts"]}
    assert mounts == {each["name"] for each in pod["spec"]["volumes"]} == {"secrets", "connector", "ca"}
    assert pod["spec"]["serviceAccountName"] == "default"
    assert pod["spec"]["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    assert not any(kind == "ServiceAccount" for kind, _ in made)


def test_a_change_of_the_settings_replaces_the_pods() -> None:
    before, after = rendered(), rendered("--set", "settings.LOG_LEVEL=debug")
    checksums = {
        each["Deployment", "changewire"]["spec"]["template"]["metadata"]["annotations"]["checksum/settings"]
        for each in (before, after)
    }
    assert len(checksums) == 2


def test_what_is_packed_holds_the_alerts_and_the_dashboards(tmp_path: Path) -> None:
    """In the checkout they are links; a registry gets their text."""
    output(linter("helm"), "package", CHART, "--destination", tmp_path)
    (archive,) = tmp_path.glob("changewire-*.tgz")
    made = list(rendered(*EVERYTHING, chart=archive).values())
    assert len(made) == len(rendered(*EVERYTHING))
    (rule,) = (each for each in made if each["kind"] == "PrometheusRule")
    alerts = yaml.safe_load((ROOT / "deploy" / "prometheus" / "rules" / "changewire.yml").read_text())["groups"]
    assert [each["alert"] for each in rule["spec"]["groups"][0]["rules"]] == [
        each["alert"] for each in alerts[0]["rules"]
    ]


def test_the_chart_names_no_secret_value() -> None:
    for path in CHART.rglob("*.yaml"):
        assert re.search(r"mongodb(\+srv)?://|kind: Secret", path.read_text()) is None, path
