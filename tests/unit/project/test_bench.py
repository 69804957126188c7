"""What the benchmark's figures rest on: what it writes and finds again, how it counts, and what it writes down."""

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bson
import pytest
from bson.int64 import Int64
from bson.timestamp import Timestamp

from app.config import connector_yaml
from app.formats import extended_json
from bench import __main__, backlog, costs, drain, ends, floor, floors, plots, procfs, report, workload, write_docs
from bench.others import Peer
from bench.others import connector_yaml as config_for
from bench.report import Result, Target
from bench.stage import Place
from bench.wire import Wire
from bench.workload import HEADLINE, LARGE, SMALL

TOKEN = "826B048202000000042B022C0100296E5A10041A53461369E741D49200A115AD94758F461E5F6964002B020004"


def event(operation: str = "insert", *, transaction: bool = False, **fields: Any) -> bytes:
    """A change event, its fields in the order in which mongod sends them."""
    session = {"id": bson.Binary(b"1" * 16, 4), "uid": b"2" * 32}
    document: dict[str, Any] = {"txnNumber": Int64(4), "lsid": session} if transaction else {}
    document |= {
        "_id": {"_data": TOKEN},
        "operationType": operation,
        "clusterTime": Timestamp(1_795_457_538, 4),
        "wallTime": bson.datetime_ms.DatetimeMS(1_795_457_538_029),
        **fields,
        "ns": {"db": "shop", "coll": "orders"},
        "documentKey": {"_id": 1},
    }
    return encoded(document)


def encoded(document: dict[str, Any]) -> bytes:
    """BSON with the fields in their order; by itself `encode` puts `_id` first."""
    return bson.encode({"e": document})[7:-1]


class TestTheWorkload:
    @pytest.mark.parametrize("size", [300, 1400, 16_000])
    def test_documents_have_their_size_and_their_number(self, size: int) -> None:
        for document in (bson.encode(workload.order(12, size)), *(each.raw for each in workload.orders([12], size))):
            assert len(document) == size
            assert bson.decode(document)["number"] == 12

    def test_ready_made_documents_have_keys_of_their_own(self) -> None:
        assert len({each["_id"] for each in workload.orders(range(50))}) == 50

    def test_the_number_is_found_in_whatever_a_contender_publishes(self) -> None:
        looked_up = workload.order(3)  # as it is by now, after later updates
        updated = {"updatedFields": {"number": 2}, "removedFields": []}
        for raw, number in (
            (event(fullDocument=workload.order(5)), 5),
            (event("update", fullDocument=looked_up, updateDescription=updated), 2),
        ):
            assert [*workload.numbers_of([raw, extended_json.encode(raw).body])] == [number, number]
        assert workload.number_of(b'{"_id": 1, "number" : 5}') == -1
        assert workload.number_of(b'{"number": 41, "note": ""}') == 41
        assert workload.number_of(rb'{"after": "{\"number\": 41, \"note\": \"\"}"}') == 41, "JSON within JSON"

    def test_a_document_shown_beforehand_counts_as_none(self) -> None:
        raw = event(fullDocument=workload.order(-1))
        assert [*workload.numbers_of([raw, extended_json.encode(raw).body])] == [-1, -1]


class TestFigures:
    def test_percentiles_are_the_nearest_rank(self) -> None:
        values = [float(each) for each in range(1, 1001)]
        assert ends.percentiles(values) == {"p50": 500, "p95": 950, "p99": 990, "p99.9": 999, "max": 1000}
        assert ends.row(values[:100])[3] == "–"

    def test_a_curve_goes_no_further_out_than_there_are_values(self) -> None:
        points = ends.distribution([1.0, 2.0, 3.0, 4.0])
        assert points[-1] == (75.0, 3.0)

    def test_rounds_alternate_and_are_compared_one_by_one(self) -> None:
        order = [each.name for each in backlog.interleaved([peer("a"), peer("b")], 3)]
        assert order == ["a", "b", "b", "a", "a", "b"]
        rounds = [one_round("changewire", 200.0), one_round("other", 400.0), one_round("changewire", 300.0)]
        assert backlog.ratios([*rounds, one_round("other", 300.0)], "inserts", "other") == [0.5, 1.0]
        assert backlog.ratios(rounds, "inserts", "mq-bridge") == []


class TestArguments:
    def test_quick_makes_smaller_only_what_was_not_given(self) -> None:
        arguments = __main__.parse(["--quick", "--events", "70"])
        assert (arguments.events, arguments.peer_events, arguments.rounds) == (70, 4, 1)

    def test_a_peer_is_a_name_and_a_command_line(self) -> None:
        arguments = __main__.parse(["--contenders", "changewire", "--peer", "mine=prog --flag 'two words'"])
        assert [each.name for each in __main__.contenders(arguments)] == ["changewire", "mine"]
        assert arguments.peer[0]._command == ["prog", "--flag", "two words"]

    @pytest.mark.parametrize("text", ["prog", "=prog", "mine=", "../x=prog", "mine='"])
    def test_a_peer_without_either_is_refused(self, text: str, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit):
            __main__.parse(["--peer", text])
        assert "--peer" in capsys.readouterr().err

    def test_another_version_is_a_name_and_a_tree(self, capsys: pytest.CaptureFixture[str]) -> None:
        root = Path(__file__).parents[3]
        arguments = __main__.parse(["--contenders", "changewire", "--tree", f"before={root}"])
        assert [each.name for each in __main__.contenders(arguments)] == ["changewire", "before"]
        with pytest.raises(SystemExit):
            __main__.parse(["--tree", f"before={root / 'docs'}"])
        assert "and app/ in it" in capsys.readouterr().err

    def test_what_a_peer_is_given_is_the_connectors_file(self) -> None:
        read = connector_yaml.parse(config_for([Place("shop", "orders", "BENCH_1"), Place("shop", "more", "BENCH_2")]))
        assert read.warnings == ()
        assert [(each.source.collection, each.sink.stream) for each in read.watchers] == [
            ("orders", "BENCH_1"),
            ("more", "BENCH_2"),
        ]


class TestTheWire:
    @pytest.fixture
    def pair(self) -> Iterator[tuple[Wire, socket.socket]]:
        """A connection, and the server's end of it."""
        with socket.create_server(("127.0.0.1", 0)) as listening:
            accepted: list[socket.socket] = []

            def serve() -> None:
                end, _ = listening.accept()
                accepted.append(end)
                end.sendall(b'INFO {"headers":true}\r\nPONG\r\n')

            thread = threading.Thread(target=serve)
            thread.start()
            with Wire(f"nats://127.0.0.1:{listening.getsockname()[1]}", seconds=10) as wire:
                thread.join()
                yield wire, accepted[0]
            accepted[0].close()

    def test_messages_in_pieces_are_put_together(self, pair: tuple[Wire, socket.socket]) -> None:
        wire, server = pair
        text = b"MSG S.insert 1 5\r\na\r\nbc\r\nPING\r\nHMSG S.insert 1 $JS.ACK.x 12 14\r\nNATS/1.0\r\n\r\nhi\r\n"
        taken = wire.messages()
        sent = threading.Thread(target=lambda: [server.send(bytes([each])) for each in text])
        sent.start()
        assert [next(taken)[1:] for _ in range(2)] == [(b"", b"a\r\nbc"), (b"NATS/1.0\r\n\r\n", b"hi")]
        sent.join()

    def test_a_servers_complaint_ends_it(self, pair: tuple[Wire, socket.socket]) -> None:
        wire, server = pair
        server.sendall(b"-ERR 'Slow Consumer'\r\n")
        with pytest.raises(ConnectionError, match="Slow Consumer"):
            next(wire.messages())


class TestThePage:
    def test_only_what_is_between_the_markers_is_exchanged(self) -> None:
        page = f"method\n\n{write_docs.BEGIN}\nold\n{write_docs.END}\n\nmore\n"
        assert write_docs.put(page, "new") == f"method\n\n{write_docs.BEGIN}\n\nnew\n\n{write_docs.END}\n\nmore\n"

    @pytest.mark.parametrize("page", ["", write_docs.BEGIN, f"{write_docs.END}{write_docs.BEGIN}"])
    def test_a_page_without_markers_is_left_alone(self, page: str) -> None:
        with pytest.raises(ValueError, match="the page needs"):
            write_docs.put(page, "new")

    def test_the_projects_page_has_its_markers(self) -> None:
        write_docs.put((Path(__file__).parents[3] / "docs" / "performance.md").read_text(), "new")

    def test_a_run_becomes_tables_targets_and_images(self, tmp_path: Path) -> None:
        target = Target("drain, changewire against mq-bridge", "1.90 ×", "≥ 1.8 ×", met=True)
        rounds = [
            {"workload": "inserts", "contender": name, "events_per_second": 1e4} for name in ("changewire", "mine")
        ]
        cpu = {"service": 1.0, "mongod": 2.0, "nats": 3.0}
        steps = ("reading", "encoding, native", "encoding, python", "publishing")
        alone = {name: {"events_per_second": 1e4, "cpu_us": cpu} for name in steps}
        run = {"contender": "changewire", "rate": 100, "service_cpu": 0.1, "distribution": [[50.0, 1.2], [99.0, 3.4]]}
        results = [
            Result(
                "drain",
                "Backlog drain",
                [["", "events/s"], ["changewire", "10,000"]],
                ["said"],
                [target],
                {"rounds": rounds},
            ),
            Result("floors", "Floors", [["step"], ["reading"]], data={"floors": {HEADLINE.name: {"floors": alone}}}),
            Result("costs", "Costs", [["step"], ["reading"]], data={HEADLINE.name: {"rate": 1e4}}),
            Result("workloads", "Other workloads", [["workload"], ["updates"]], data={"rounds": []}),
            Result("latency", "Latency", [["ms"], ["1.2"]], data={"runs": [run], "section_seconds": 120}),
        ]
        machine = {
            "cores": 2,
            "cpu": "X",
            "memory_gb": 24,
            "system": "Linux",
            "python": "3.11",
            "load_before": [0.1],
            "mongod": "6",
        }
        report.write_json(tmp_path / "run.json", machine, {"quick": False}, results)
        content = report.read_json(tmp_path / "run.json")
        drawn = plots.draw(content, tmp_path / "images")
        text = write_docs.generated(content, {path.name for path in drawn})
        assert {path.name for path in drawn} == {plots.THROUGHPUT, plots.FLOORS, plots.LATENCY}
        assert all(path.read_bytes().startswith(b"\x89PNG") for path in drawn)
        assert "| changewire | 10,000   |" in text
        assert "| drain, changewire against mq-bridge | ≥ 1.8 × | 1.90 ×   | met |" in text
        assert f"](images/{plots.THROUGHPUT})" in text
        assert f"](images/{plots.FLOORS})" in text
        assert f"](images/{plots.LATENCY})" in text
        assert "One run of `make bench`, 2 minutes" in text


class TestTheDrain:
    def test_counting_begins_when_every_program_is_up_to_speed(self) -> None:
        assert not backlog.up_to_speed(19, 100, started=True)
        assert backlog.up_to_speed(20, 100, started=True)
        assert not backlog.up_to_speed(49, 100, started=False)
        assert backlog.up_to_speed(50, 100, started=False), "else nothing would be left to count"
        assert not backlog.up_to_speed(0, 1, started=True)

    def test_each_size_has_its_own_target(self) -> None:
        ours, other = peer("changewire"), peer("mq-bridge")
        rounds = [
            one_round(name, rate, load.name)
            for load, rates in ((SMALL, (150.0, 100.0)), (HEADLINE, (170.0, 100.0)))
            for name, rate in zip(("changewire", "mq-bridge"), rates, strict=True)
        ]
        everyone = {SMALL.name: [ours, other], HEADLINE.name: [ours, other]}
        result = drain._result(everyone, [SMALL, HEADLINE], rounds, 1)
        assert [(each.what, each.figure, each.met) for each in result.targets] == [
            ("drain at 300 bytes, changewire against mq-bridge", "1.50 ×", True),
            ("drain at 1,400 bytes, changewire against mq-bridge", "1.70 ×", False),
            ("processor time at 1,400 bytes, service", "8.0 µs", True),
            ("processor time at 1,400 bytes, mongod", "9.0 µs", True),
            ("processor time at 1,400 bytes, nats-server", "12.0 µs", False),
        ]
        assert any("(publish mode: window)" in remark for remark in result.remarks)

    def test_a_workload_has_as_many_events_as_give_a_rate(self) -> None:
        assert [each.share(100_000) for each in (SMALL, HEADLINE, LARGE)] == [150_000, 100_000, 25_000]
        assert LARGE.share(500) == 500

    def test_threads_are_told_apart(self) -> None:
        used = procfs.thread_seconds(os.getpid())
        assert used[procfs.EVENT_LOOP] > 0


class TestTheFloors:
    def floors(self, **rates: float) -> dict[str, Any]:
        """Each step with 1 µs of the service, 2 of mongod, and 3 of nats-server."""
        cpu = {"service": 1.0, "mongod": 2.0, "nats": 3.0}
        return {name: {"events_per_second": rate, "cpu_us": cpu} for name, rate in rates.items()}

    def test_the_lowest_one_binds(self) -> None:
        some = self.floors(reading=5000.0, encoding=2000.0, encoding_python=10.0, publishing=3000.0)
        assert costs.binds(some) == ("encoding alone", 2000.0)
        many = self.floors(reading=1e9, encoding=1e9, publishing=1e9)
        binding, limit = costs.binds(many)
        assert (binding, round(limit)) == (floors.ALL_BUSY, round(procfs.cores() * 1e6 / 18))

    def test_what_a_drain_takes_beyond_its_steps_is_shown(self) -> None:
        measured = {"cpu_us": {"service": 8.0, "mongod": 9.0, "nats": 12.0}, "threads_us": {procfs.EVENT_LOOP: 7.5}}
        one = {"workload": HEADLINE.name, "contender": "changewire", "events_per_second": 1000.0, **measured}
        alone = self.floors(reading=5000.0, encoding=2000.0, publishing=3000.0)
        result = costs.compare(
            Result("drain", "", [], data={"rounds": [one]}),
            Result("floors", "", [], data={"floors": {HEADLINE.name: {"floors": alone}}}),
        )
        rows = {row[1]: row[2:] for row in result.table[1:]}
        assert rows["encoding alone"] == ["1.0", "2.0", "3.0", "6.0"]
        assert rows["the drain"] == ["8.0", "9.0", "12.0", "29.0"]
        assert rows["the drain beyond its steps"] == ["5.0", "3.0", "3.0", "11.0"]
        assert rows["of the drain, the service's event loop"] == ["7.5", "", "", "7.5"]
        assert "are 50% of the lowest floor, encoding alone (2,000)" in result.remarks[0]

    def test_a_step_is_measured_from_its_first_fifth_on(self) -> None:
        asked = floor.Asked("shop", "orders", "BENCH_1", 1, 0, 10, {})
        watch = floor.Watch(asked, asked.events)
        watch.passed(1)
        assert watch._began is None
        watch.passed(2)
        assert watch._began is not None
        assert watch._began[0] == 3
        watch.passed(7)
        assert watch.floor().events_per_second > 0
        assert watch.floor().cpu_us.keys() == {"service"}


def peer(name: str) -> Peer:
    return Peer.named(f"{name}=program")


def one_round(contender: str, rate: float, load: str = "inserts") -> backlog.Round:
    cpu = {"service": 8.0, "mongod": 9.0, "nats": 12.0}
    return backlog.Round(load, contender, 10, rate, 1.0, cpu, 1.0, 1, 0.0, way="window")
