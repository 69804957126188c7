"""What the documentation has to name is named, and what it points to is there."""

import re
from pathlib import Path

import pytest

import app
from app.api.schemas.base import Shape
from app.api.schemas.watchers import CheckpointShape, NewWatcher, SinkShape, SourceShape
from app.config.connector_yaml import COLLECTION_KEYS
from app.config.connector_yaml import SETTINGS as CONNECTOR_SETTINGS
from app.config.settings import variables
from app.domain.lifecycle import State
from app.domain.watcher import problems
from tests.docs_reference import DOCS, REFERENCES, renewed
from tests.unit.metrics.test_observer import CONTRACT

ROOT = Path(__file__).parents[3]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", REFERENCES)
def test_what_the_documentation_takes_from_the_code_is_what_the_code_says(page: str) -> None:
    text = (DOCS / page).read_text()
    assert renewed(page, text) == text, "run: make docs"


def test_every_setting_and_every_metric_is_in_the_tables() -> None:
    assert [name for name in variables() if f"`{name}`" not in REFERENCES["settings.md"]()] == []
    assert [name for name in CONTRACT if f"`{name}`" not in REFERENCES["metrics.md"]()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_within_the_project_leads_somewhere(page: Path) -> None:
    links = re.findall(r"(?<!!)\[[^]]*\]\((?!https?:)([^)#]*)#?([^)]*)\)", page.read_text())
    for path, anchor in links:
        target = page.parent / path if path else page
        assert target.exists(), path
        assert not anchor or anchor in anchors(target), f"{path}#{anchor}"


def test_the_words_by_which_a_symptom_is_found_are_those_of_the_service() -> None:
    quoted = re.findall(r'"([^"]+)"', (DOCS / "troubleshooting.md").read_text())
    code = "\n".join(path.read_text() for path in (ROOT / "app").rglob("*.py"))
    said = re.sub(r'"\s*\n\s*f?"', "", code)
    assert len(quoted) > 8
    assert [words for words in quoted if words.removesuffix(" …") not in said] == []


def test_the_worked_examples_of_retention_are_worked_out() -> None:
    units = {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9}
    rows = re.findall(r"\| ([^|]*×[^|]*) \| ([\d.]+) (GB) \|", (DOCS / "retention.md").read_text())
    assert len(rows) == 6
    for calculation, result, unit in rows:
        product = 1.0
        for number, of in re.findall(r"([\d,.]+)(?: (B|kB|MB))?(?:/s| s)?(?= ×|$)", calculation.rpartition(";")[2]):
            product *= float(number.replace(",", "")) * units.get(of, 1)
        assert product == pytest.approx(float(result) * units[unit], rel=0.05), calculation


def test_every_page_is_in_the_index() -> None:
    linked = set(re.findall(r"\]\(([\w-]+\.md)\)", (DOCS / "README.md").read_text()))
    assert {path.name for path in DOCS.glob("*.md")} - linked == {"README.md", "pypi.md"}  # which PyPI shows


def anchors(page: Path) -> set[str]:
    """What a page's headings are called in links."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_every_module_that_the_maps_name_is_there() -> None:
    for page in (DOCS / "glossary.md").read_text(), app.__doc__ or "":
        named = set(re.findall(r"`((?:\w+/)+\w+\.(?:py|rs))`", page))
        assert len(named) > 5
        assert sorted(path for path in named if not ((ROOT / "app" / path).exists() or (ROOT / path).exists())) == []


def test_every_package_is_on_the_maps() -> None:
    packages = {path.parent.name for path in (ROOT / "app").glob("*/__init__.py")}
    glossary = (DOCS / "glossary.md").read_text()
    in_table = set(re.findall(r"^\| `app/(\w+)` \|", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE))
    assert {name for name in packages if f"`{name}/" not in glossary} <= in_table
    assert packages - in_table == set()
    assert [name for name in packages if not re.search(rf"\b{name}\b", app.__doc__ or "")] == []


def test_each_row_of_the_glossary_is_one_term_with_its_place() -> None:
    rows = re.findall(r"^\| (?!---|term|question)(.*) \|$", (DOCS / "glossary.md").read_text(), re.MULTILINE)
    terms = [row.split(" | ")[0] for row in rows if row.count(" | ") == 2]
    assert len(terms) > 60
    assert sorted({term for term in terms if terms.count(term) > 1}) == []


def test_every_state_is_explained() -> None:
    text = (DOCS / "concepts.md").read_text()
    assert re.findall(r"^\| `([A-Z]+)` \|", text, re.MULTILINE) == [state.value for state in State]


def test_the_page_on_migration_names_settings_and_fields_that_there_are() -> None:
    text = (DOCS / "migration.md").read_text()
    envelope = {("source", field) for field in ("db", "collection", "ts_ms", "ord", "snapshot")}  # Debezium's
    shapes: dict[str, type[Shape]] = {"source": SourceShape, "sink": SinkShape, "checkpoint": CheckpointShape}
    named = re.findall(
        r"`(source|sink|checkpoint)\.(\w+)", text.replace("`source.db`", "").replace("`source.ts_ms`", "")
    )
    assert {(shape, field) for shape, field in named if field not in shapes[shape].model_fields} <= envelope
    assert set(re.findall(r"CHANGEWIRE_\w+", text)) <= set(variables())
    assert [key for key in (*COLLECTION_KEYS, *CONNECTOR_SETTINGS.values()) if f"`{key}`" not in text] == []
    examples = [NewWatcher.model_validate_json(each) for each in re.findall(r"```json\n(.*?)```", text, re.DOTALL)]
    assert [problems(each.to_watcher(), state_database="changewire") for each in examples] == [[], []]
