"""What the documentation has to name is named, and what it points to is there."""

import re
from pathlib import Path

import pytest

from app.settings import variables
from tests.docs_reference import DOCS, REFERENCES, renewed
from tests.unit.test_metrics import CONTRACT

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", REFERENCES)
def test_what_the_documentation_takes_from_the_code_is_what_the_code_says(page: str) -> None:
    text = (DOCS / page).read_text()
    assert renewed(page, text) == text, "make docs writes it anew"


def test_every_setting_and_every_metric_is_in_the_tables() -> None:
    assert [name for name in variables() if f"`{name}`" not in REFERENCES["settings.md"]()] == []
    assert [name for name in CONTRACT if f"`{name}`" not in REFERENCES["metrics.md"]()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_within_the_project_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []
