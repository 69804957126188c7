"""The benchmark's section of snapshots: what a stream has to hold, what a crash repeats, and the section's rows."""

from pathlib import Path
from typing import Any

import pytest

from bench import report, write_docs
from bench.check import _rows
from bench.snapshots import again
from bench.snapshots_rows import result_of
from bench.stage import Incomplete


def change(number: int) -> bytes:
    return b'{"_id":{"_data":"82"},"operationType":"insert","fullDocument":{"number":%d}}' % number


def row(number: int) -> bytes:
    return change(number).replace(b"insert", b"snapshot")


DONE = b'{"_id":{"_data":"82"},"operationType":"snapshot_done","snapshot":{}}'


class TestCheck:
    def test_each_document_once_and_later_ones_after_their_insert(self) -> None:
        bodies = [change(3), row(0), row(2), change(4), row(3), row(1), row(4), DONE, change(5)]
        assert _rows(iter(bodies), range(3), range(3, 6)) == 5
        assert _rows(iter([row(0), change(1), DONE, row(1), row(0), DONE]), range(1), range(1, 2)) == 3

    @pytest.mark.parametrize(
        ("bodies", "words"),
        [
            ([row(0), row(0), DONE], "comes twice in a run"),
            ([row(0), row(1), change(1), DONE], "before its insert"),
            ([change(1), row(0), DONE], "lacks 1 documents"),
            ([row(0), DONE, change(2)], "change 2 comes where 1 should"),
            ([change(1), row(0), row(1)], "within a run"),
            ([row(0), DONE], "ends before change 1"),
        ],
    )
    def test_anything_else_is_refused(self, bodies: list[bytes], words: str) -> None:
        with pytest.raises(Incomplete, match=words):
            _rows(iter(bodies), range(1), range(1, 2))


def test_what_is_read_again_are_the_chunks_of_which_rows_are_missing() -> None:
    planned = {"documents": 50, "chunks": {str(number): {"count": 10} for number in (8, 9, 10)}}
    assert again(planned, 50) == 0
    assert again(planned, 45) == 10
    assert again(planned, 25) == 30
    assert again({}, 0) == 0


def measured(speed: float = 900.0, p99: float = 200.0, peak: float = 90.0, again: int = 90) -> dict[str, Any]:
    cpu = {"service": 10.0, "mongod": 6.0, "nats": 14.0}
    run = {"per_second": speed, "cpu_us": cpu, "others_share": 0.1, "peak": peak, "idle": 60.0, "seconds": 2.0}
    return {
        "rate": 500, "sizes": {"documents": 1000}, "drains": [{**run, "per_second": 1000.0}], "runs": [run],
        "beside": [{**run, "what": "one watcher", "delays": {"before": [1.0], "during": [p99]}}],
        "kills": [{"again": again, "seconds": 1.0}],
        "others": [{**run, "what": "a filter", "documents": 1000, "rows": 10}], "checked": [[5, 6], [7, 8]],
    }  # fmt: skip


class TestRows:
    def test_each_figure_stands_beside_what_is_asked(self) -> None:
        found = {what: figures for what, *figures in result_of(measured()).table[1:]}
        assert found["snapshot against drain, round by round"] == ["≥ 0.8 ×", "0.90 ×"]
        assert found["memory, most of all of these (idle: 60), MB"] == ["≤ 100", "90"]
        title = "kill -9 in the middle (1 times): work repeated, s (worst; 90 rows)"
        assert found[title] == ["≤ 1", "0.10"]
        assert found["a filter: documents looked at/s, 1,000 documents"][1].startswith("500 ")
        assert ["all", "12 rows, 14 changes"] in found.values()
        assert all(each.met for each in result_of(measured()).targets)

    @pytest.mark.parametrize("worse", [{"speed": 700.0}, {"p99": 251.0}, {"peak": 101.0}, {"again": 901}])
    def test_what_is_missed_is_said(self, worse: dict[str, Any]) -> None:
        assert [each.met for each in result_of(measured(**worse)).targets].count(False) == 1

    def test_nothing_measured_is_no_row(self) -> None:
        lists: dict[str, list[Any]] = {name: [] for name in ("drains", "runs", "beside", "kills", "others", "checked")}
        assert len(result_of(lists | {"rate": 500, "sizes": {"documents": 1}}).table) == 1


def test_a_run_of_snapshots_alone_is_written_on_their_page_and_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = {"cores": 2, "cpu": "X", "memory_gb": 24, "system": "Linux", "python": "3.11", "load_before": [0.1]}
    report.write_json(tmp_path / "run.json", machine, {"quick": False}, [result_of(measured())])
    empty = f"{write_docs.BEGIN}\n{write_docs.END}\n"
    for page in ("performance.md", "sizing.md"):
        (tmp_path / page).write_text(empty)
    (tmp_path / "snapshots.md").write_text((Path(__file__).parents[3] / "docs" / "snapshots.md").read_text())
    monkeypatch.setattr("sys.argv", ["write_docs", str(tmp_path / "run.json"), str(tmp_path / "performance.md")])
    write_docs.main()
    assert "| ≥ 0.8 × " in (tmp_path / "snapshots.md").read_text()
    assert {(tmp_path / page).read_text() for page in ("performance.md", "sizing.md")} == {empty}
