"""Files of watchers that cannot be meant: each is refused in a line that says where."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.cli import CommandError
from app.cli.watcher_files import read

GROWS = "name: x\na: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n"
    for before, name in zip("abcdefghi", "bcdefghij", strict=True)
)
"""Ten thousand million values in ten lines."""


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [("x.yaml", "name: [a\n  b: {", "line 2, column 4: expected ',' or ']', but got ':'"),
     ("x.json", '{"name": "a", ', "line 1, column 15: expecting property name enclosed in double quotes"),
     ("x.json", '{"name": "a", "name": "b"}', "'name' is there twice"),
     ("x.yaml", "name: a\nsource: {}\nsource: {}", "line 3, column 1: 'source' is there twice"),
     ("x.yaml", "watchers: []\nother: 1", "beside `watchers` there is other"),
     ("x.yaml", GROWS, "it holds more than 1,000,000 values"),
     ("x.yaml", "name: x\nsource: &a {b: *a}", "it holds more than 1,000,000 values"),
     ("x.json", "[" * 100_000, "it is nested too deeply"),
     ("x.yaml", '!!python/object/apply:os.system ["x"]', "line 1, column 1: could not determine a constructor"),
     ("x.json", "", "holds no watcher")],
)  # fmt: skip
def test_a_file_that_cannot_be_meant_is_refused_with_the_place(tmp_path: Path, name: str, text: str, said: str) -> None:
    file = tmp_path / name
    file.write_text(text)
    with pytest.raises(CommandError) as refused:
        read(file)
    assert said in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


def test_what_yaml_repeats_on_purpose_is_read(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text("- &a {name: a, source: {database: shop}, paused: true}\n- {<<: *a, name: b}\n")
    assert [each.document for each in read(file)] == [
        {"name": name, "source": {"database": "shop"}, "paused": True} for name in ("a", "b")
    ]
