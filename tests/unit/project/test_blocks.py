"""Every command of the documentation is run by a test, or says why it is not."""

import re

import pytest

from tests.pages import LANGUAGES, ROOT, blocks, mongosh

PAGES = ["README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))]
TESTS = "\n".join(path.read_text() for path in (ROOT / "tests" / "integration").rglob("test_*.py"))


@pytest.mark.parametrize("page", PAGES)
def test_a_page_with_commands_is_run_by_a_test(page: str) -> None:
    run = [block for block in blocks(page) if block.language in LANGUAGES and block.unrun is None]
    assert not run or f'"{page}"' in TESTS, f"no test in tests/integration names {page}: {run[0].text}"


@pytest.mark.parametrize("page", PAGES)
def test_every_block_is_closed_and_every_mark_is_of_a_block(page: str) -> None:
    text = (ROOT / page).read_text()
    found = blocks(page)
    assert len(re.findall(r"^ *```", text, re.MULTILINE)) == 2 * len(found)
    assert text.count("<!-- not run:") == sum(block.unrun is not None for block in found)


def test_scripts_of_mongosh_are_read_as_they_are_written() -> None:
    script = """
// a comment
db.getSiblingDB("admin").createRole({role: "r", roles: [], privileges: [
  {resource: {db: "a", collection: ""}, actions: ["find"]}
]})
db.adminCommand({replSetResizeOplog: 1, size: Double(990)})
"""
    assert list(mongosh(script)) == [
        (
            "admin",
            {
                "createRole": "r",
                "roles": [],
                "privileges": [{"resource": {"db": "a", "collection": ""}, "actions": ["find"]}],
            },
        ),
        ("admin", {"replSetResizeOplog": 1, "size": 990.0}),
    ]
    with pytest.raises(ValueError, match="not a call"):
        list(mongosh("db.dropDatabase()"))
