"""`changewire watchers apply`, `replace` and `export` against a real service: what they say is what has happened, and a
watcher that is so already is left alone."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.__main__ import main
from tests.integration.cli.command import Command
from tests.live import Live

PARTS: dict[str, dict[str, Any]] = {
    "scope": {"source": {"include": ["orders_*"], "exclude": ["*_tmp"], "show_expanded_events": True}},
    "filtered": {
        "source": {"collection": "filtered", "pipeline": [{"$match": {"fullDocument.total": {"$gt": 1.5, "$lt": 10}}}]},
        "start": {"at": "earliest"},
        "on_history_lost": "latest",
    },
    "kept": {
        "source": {"collection": "kept", "full_document_before_change": "off"},
        "sink": {"subject": "{stream}.kept.{operation}", "operations": ["insert", "drop"], "max_age_seconds": 3600},
        "checkpoint": {"collection": "kept"},
        "paused": True,
    },
    "plain": {"source": {"collection": "plain"}},
}


def definitions(live: Live) -> list[dict[str, Any]]:
    """Watchers of every kind, of this test's own database and streams."""
    made: list[dict[str, Any]] = []
    for name, parts in PARTS.items():
        one = json.loads(json.dumps(parts))
        one["source"] = {"database": live.database, **one["source"]}
        one["sink"] = {"stream": f"{name}_{live.unique}".upper(), **one.get("sink", {})}
        if "checkpoint" in one:
            one["checkpoint"]["database"] = f"tokens_{live.unique}"
        made.append({"name": name, **one})
    return made


def written(directory: Path, name: str, *documents: dict[str, Any]) -> str:
    path = directory / name
    path.write_text(yaml.safe_dump_all(documents) if name.endswith(".yaml") else json.dumps(list(documents)))
    return str(path)


async def revisions(live: Live) -> dict[str, str]:
    """The revision of each watcher: a change that says nothing new would make a new one, and a restart."""
    names = [each["name"] for each in await live.get("/watchers")]
    return {name: (await live.call("GET", f"/watchers/{name}", 200)).headers["ETag"] for name in names}


async def failed(command: tuple[str, ...], capfd: pytest.CaptureFixture[str]) -> list[str]:
    """The lines on standard error of a command that fails."""
    capfd.readouterr()
    assert await asyncio.to_thread(main, ["watchers", *command]) == 1
    return capfd.readouterr().err.splitlines()


async def test_what_is_exported_is_applied_and_found_unchanged(watchers: Command, live: Live, tmp_path: Path) -> None:
    made = definitions(live)
    said = await watchers("apply", "-f", written(tmp_path, "all.yaml", *made))
    assert [line.partition(",")[0] for line in said.splitlines()] == [
        "scope: created", "filtered: created", "kept: created", "plain: created", "4 created",
    ]  # fmt: skip
    for name in PARTS:
        await live.reaches("PAUSED" if name == "kept" else "RUNNING", name)
    before, answers = await revisions(live), await watchers.json("list")
    for file in ("export.yaml", "export.json"):
        assert await watchers("export", "-o", str(tmp_path / file)) == f"{tmp_path / file}: 4 watchers\n"
        assert (await watchers("apply", "-f", str(tmp_path / file))).splitlines() == [
            *(f"{name}: unchanged" for name in sorted(PARTS)), "4 unchanged",
        ]  # fmt: skip
    (tmp_path / "printed.yaml").write_text(await watchers("export"))
    assert (tmp_path / "printed.yaml").read_text() == (tmp_path / "export.yaml").read_text()
    (tmp_path / "printed.json").write_text(await watchers("export", "kept", "--json"))
    assert json.loads((tmp_path / "printed.json").read_text())["name"] == "kept"
    assert "4 unchanged" in await watchers("apply", "-f", str(tmp_path / "all.yaml"))
    assert await revisions(live) == before

    for name in PARTS:
        await watchers("remove", name, "--delete-checkpoint")
    assert await watchers("export", code=1) == "changewire: there are no watchers to export\n"
    await watchers("apply", "-f", str(tmp_path / "export.json"))
    again = await watchers.json("list")
    assert [{**each, "status": None} for each in sorted(again, key=lambda each: str(each["name"]))] == [
        {**each, "status": None} for each in sorted(answers, key=lambda each: str(each["name"]))
    ]


async def test_only_what_differs_is_replaced_and_each_field_is_said(
    watchers: Command, live: Live, tmp_path: Path
) -> None:
    await live.add()
    await live.reaches("RUNNING")
    live.insert(1)
    await live.seen("1")
    other = {"name": "other", "source": {"database": live.database, "collection": "other"}}
    wanted = live.definition(on_history_lost="earliest", sink={"oversize": "dead_letter"})
    files = ("-f", written(tmp_path, "one.json", wanted), "-f", written(tmp_path, "two.yaml", other))
    changes = ["  sink.oversize: claim_check → dead_letter", "  on_history_lost: fail → earliest"]
    before = await revisions(live)
    assert (await watchers("apply", *files, "--dry-run")).splitlines() == [
        "orders: would be replaced", *changes, "other: would be created", "1 created, 1 replaced",
    ]  # fmt: skip
    assert await revisions(live) == before
    said = (await watchers("apply", *files)).splitlines()
    assert said[0].startswith("orders: replaced, ")
    assert said[1:3] == changes
    assert said[3].startswith("other: created, ")
    await live.reaches("RUNNING")
    live.insert(2)
    await live.seen("1", "2")
    assert await watchers.json("apply", *files) == [
        {"name": name, "result": "unchanged", "changes": []} for name in ("orders", "other")
    ]


async def test_a_paused_watcher_stays_paused_unless_the_file_says_it(
    watchers: Command, live: Live, tmp_path: Path
) -> None:
    await live.add()
    await watchers("pause", "orders")
    wanted = live.definition(on_history_lost="latest")
    assert "orders: replaced, PAUSED" in await watchers("apply", "-f", written(tmp_path, "x.json", wanted))
    assert (await live.get("/watchers/orders"))["paused"] is True
    said = await watchers("apply", "-f", written(tmp_path, "x.json", wanted | {"paused": False}))
    assert said.splitlines()[1] == "  paused: true → false"
    await live.reaches("RUNNING")


async def test_all_that_is_wrong_is_said_at_once_and_nothing_is_changed(
    watchers: Command, live: Live, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    await live.add()
    fine = {"name": "fine", "source": {"database": live.database, "collection": "fine"}}
    wrong = live.definition(on_history_lost="latest", sink={"stram": "X", "replicas": 9})
    elsewhere = {"name": "elsewhere", "source": {"database": "local", "collection": "x"}}
    unnamed = {"source": {"database": live.database, "collection": "unnamed"}}
    before = await revisions(live)
    file = written(tmp_path, "all.json", fine, wrong, elsewhere)
    lines = await failed(("apply", "-f", file), capfd)
    assert any(line.startswith("changewire: orders: sink.stram: ") for line in lines), lines
    assert any(line.startswith("changewire: orders: sink.replicas: ") for line in lines), lines
    assert any(line.startswith("changewire: elsewhere: source.database: ") for line in lines), lines
    assert lines[-1] == "changewire: nothing was changed"
    file = written(tmp_path, "all.json", fine, unnamed)
    lines = await failed(("apply", "-f", file), capfd)
    assert any(line.startswith(f"changewire: watcher 2 of {file}: name: ") for line in lines), lines
    assert await revisions(live) == before


async def test_the_collection_of_a_watcher_stays_and_apply_says_why(
    watchers: Command, live: Live, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    await live.add()
    moved = live.definition() | {"source": {"database": live.database, "collection": "moved"}}
    first, *_, last = await failed(("apply", "-f", written(tmp_path, "x.json", moved)), capfd)
    assert first.startswith(f"changewire: orders: source: reads {live.database}.{live.collection}; ")
    assert last == "changewire: nothing was changed"


async def test_a_watcher_that_somebody_changes_meanwhile_is_not_overwritten(
    watchers: Command, live: Live, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from app.cli import watcher_plan

    await live.add()
    tried = watcher_plan.plan
    loop = asyncio.get_running_loop()

    def plan(*arguments: Any, **options: Any) -> list[watcher_plan.Step]:
        steps = tried(*arguments, **options)
        asyncio.run_coroutine_threadsafe(live.put(on_history_lost="earliest"), loop).result(30)
        return steps

    monkeypatch.setattr(watcher_plan, "plan", plan)
    new = {"name": "new", "source": {"database": live.database, "collection": "new"}}
    wanted = live.definition(on_history_lost="latest")
    lines = await failed(("apply", "-f", written(tmp_path, "x.json", new, wanted)), capfd)
    assert lines == [
        "changewire: orders: somebody has changed it meanwhile; repeat the command",
        "changewire: the other watchers were changed; correct this and repeat the command",
    ]
    assert (await live.get("/watchers/orders"))["on_history_lost"] == "earliest"
    monkeypatch.undo()
    monkeypatch.setenv("CHANGEWIRE_URL", live.url)
    monkeypatch.setenv("CHANGEWIRE_API_TOKEN", "hunter2hunter2")
    said = (await watchers("apply", "-f", str(tmp_path / "x.json"))).splitlines()
    assert (said[0], said[2]) == ("new: unchanged", "  on_history_lost: earliest → latest")


async def test_one_is_replaced_by_options_and_has_to_exist(
    watchers: Command, live: Live, capfd: pytest.CaptureFixture[str]
) -> None:
    options = ("--database", live.database, "--collection", live.collection)
    assert await failed(("replace", "orders", *options), capfd) == [
        "changewire: orders: there is no such watcher; add it with watchers add",
        "changewire: nothing was changed",
    ]
    await live.add(on_history_lost="latest")
    before = await revisions(live)
    said = await watchers("replace", "orders", *options, "--stream", live.stream, "--dry-run")
    assert said == "orders: would be replaced\n  on_history_lost: latest → fail\n"
    assert await revisions(live) == before
    said = await watchers("replace", "orders", *options, "--stream", live.stream)
    assert said.startswith("orders: replaced, ")
    assert await watchers("replace", "orders", *options, "--stream", live.stream) == "orders: unchanged\n"
    await live.reaches("RUNNING")
    live.insert(1)
    await live.seen("1")


async def test_definitions_come_from_standard_input(
    watchers: Command, live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    import io
    import sys

    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(live.definition())))
    assert (await watchers("apply", "-f", "-")).startswith("orders: created, ")
    monkeypatch.setattr(sys, "stdin", io.StringIO(await watchers("export", "orders")))
    assert await watchers("apply", "-f", "-") == "orders: unchanged\n"
