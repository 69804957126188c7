"""Every command of the documentation is run by a test, or says why it is not."""

import re
from collections import defaultdict

import pytest

from app.__main__ import main
from app.cli.program import COMMANDS
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


GROUPS = ("watchers", "instances", "streams")
"""Commands that have commands of their own."""
CALL = re.compile(r"(?:^ *|`|/)changewire ((?:[a-z-]+ ?)+)((?: ?[^`\n#;|>]+)?)", re.MULTILINE)


def calls() -> dict[tuple[str, ...], set[str]]:
    """The commands of Changewire that pages call, each with the options that it is given somewhere."""
    found = defaultdict[tuple[str, ...], set[str]](set)
    for page in PAGES:
        for words, rest in CALL.findall((ROOT / page).read_text()):
            name, *more = words.split()
            if name in COMMANDS:
                below = [word for word in more[:1] if name in GROUPS and not word.startswith("-")]
                options = re.findall(r"(?<![\w-])--?[a-z][a-z-]*", f"{words} {rest}")
                found[(name, *below)] |= set(options)
    return found


@pytest.mark.parametrize(("command", "options"), calls().items(), ids=lambda value: " ".join(sorted(value)))
def test_commands_and_options_of_the_pages_are_there(
    command: tuple[str, ...], options: set[str], capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = main([*command, "--help"])
    except SystemExit as ended:
        code = int(ended.code or 0)
    said = capsys.readouterr().out
    assert code == 0, command
    assert [option for option in options if not re.search(rf"(?<![\w-]){option}(?![\w-])", said)] == []


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
