"""What deployments take from the code and from each other, so that nothing is told twice by hand.

`make docs` writes it; `tests/unit/project/test_deploy_reference.py` compares:

- `.env.example`: every setting, with its meaning and its default or an example;
- `deploy/helm/changewire/values.schema.json`: which settings may be values, and which stand in files of a Secret;
- `deploy/kubernetes/prometheusrule.yaml`: the alerts of `deploy/prometheus/rules`, for the Prometheus operator.
"""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from app.config.settings import Settings, variable, variables
from tests.docs_reference import descriptions, in_order

ROOT = Path(__file__).parents[1]

HEAD = """\
# Settings, for `changewire serve` and for `docker compose up`, both in this directory:
#   cp .env.example .env
# Each variable is here, switched off, with its default or an example. Take away the # of those that you set.
# The environment wins over this file. In compose.yaml, its own MONGO_URI, NATS_URL and SERVER_ADDR win.
"""


def env_example() -> str:
    """Every variable, commented out, below its meaning."""
    described, known = descriptions(), set(variables())
    blocks = [HEAD]
    for name, field in in_order():
        meaning = textwrap.fill(" ".join(described[name].split()), 110, initial_indent="# ", subsequent_indent="# ")
        lines = [meaning, f"#{variable(name)}={_value(field)}"]
        if (file := f"{variable(name)}_FILE") in known:
            lines.append(f"#{file}=/run/secrets/{variable(name).removeprefix('CHANGEWIRE_').lower().replace('_', '-')}")
        blocks.append("\n".join(lines) + "\n")
    return "\n".join(blocks)


def _value(field: FieldInfo) -> str:
    """The default where there is one; else an example that can stand in the file, if there is one."""
    default = field.default.get_secret_value() if isinstance(field.default, SecretStr) else field.default
    if default is not None:
        return str(default).lower() if isinstance(default, bool) else str(default)
    example = str((field.examples or [""])[0])
    return "" if example.startswith(("(", "the ")) or "(" in example else example


def plain_variables() -> list[str]:
    """The variables that hold no secret and name no file with one."""
    known = set(variables())
    secret = {name for name in known if f"{name}_FILE" in known}
    return sorted(known - secret - {f"{name}_FILE" for name in secret})


def file_variables() -> list[str]:
    """The variables that name a file in a Secret: a secret's own, or a file of keys or certificates."""
    known = set(variables())
    secret_files = {f"{name}_FILE" for name in known} & known
    return sorted(secret_files | {variable(name) for name, field in Settings.model_fields.items() if _is_a_path(field)})


def _is_a_path(field: FieldInfo) -> bool:
    return str((field.examples or [""])[0]).startswith("/")


def values_schema() -> str:
    """The chart's schema, with the names of the settings."""
    schema = json.loads((ROOT / "deploy/helm/changewire/values.schema.json").read_text())
    properties = schema["properties"]
    properties["settings"]["properties"] = {name: {"type": "string"} for name in plain_variables()}
    properties["settings"]["properties"]["SERVER_ADDR"]["pattern"] = ":[0-9]+$"
    key = {"type": "string", "pattern": "^[-._a-zA-Z0-9]+$"}
    properties["secret"]["properties"]["files"]["properties"] = dict.fromkeys(file_variables(), key)
    return json.dumps(schema, indent=2) + "\n"


def prometheus_rule() -> str:
    """The alerts as the Prometheus operator wants them."""
    rules = (ROOT / "deploy/prometheus/rules/changewire.yml").read_text()
    return (
        "# From ../prometheus/rules/changewire.yml; make docs writes it.\n"
        "apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata:\n  name: changewire\nspec:\n"
    ) + textwrap.indent(rules, "  ")


WRITTEN: dict[str, Callable[[], str]] = {
    ".env.example": env_example,
    "deploy/helm/changewire/values.schema.json": values_schema,
    "deploy/kubernetes/prometheusrule.yaml": prometheus_rule,
}


def main() -> int:
    for path, text in WRITTEN.items():
        (ROOT / path).write_text(text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
