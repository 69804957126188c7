"""The metrics: names and labels of the contract, right numbers, and nothing left of a forgotten watcher."""

from __future__ import annotations

import random
import threading

import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.domain.events import Change
from app.domain.lifecycle import State
from app.metrics.observer import PrometheusObserver
from app.ports import Observer, Published

NOW = 1_700_000_000.0

CONTRACT = {
    "connector_change_event_processing_duration_seconds": {"collection", "subject"},
    "mongodb_commands_started_total": {"database", "command"},
    "mongodb_commands_succeeded_total": {"database", "command"},
    "mongodb_commands_failed_total": {"database", "command"},
    "mongodb_command_duration_seconds": {"database", "command"},
    "nats_messages_published_total": {"subject"},
    "nats_messages_failed_total": {"subject"},
    "nats_message_duration_seconds": {"subject"},
    "changewire_watcher_state": {"watcher", "state"},
    "changewire_watcher_lag_seconds": {"watcher"},
    "changewire_watcher_oplog_headroom_seconds": {"watcher"},
    "changewire_watcher_history_at_risk": {"watcher"},
    "changewire_watcher_overdue": {"watcher"},
    "changewire_watcher_dead_letters": {"watcher"},
    "changewire_watcher_checkpoint_age_seconds": {"watcher"},
    "changewire_watcher_restarts_total": {"watcher", "reason"},
    "changewire_events_total": {"watcher", "operation"},
    "changewire_events_skipped_total": {"watcher", "reason"},
    "changewire_batch_events": {"watcher"},
    "changewire_event_delay_seconds": {"watcher"},
    "changewire_snapshot_documents_total": {"watcher"},
    "changewire_snapshot_running": {"watcher"},
    "changewire_change_streams": {"kind"},
    "changewire_feed_members": {"database"},
    "changewire_instance_watchers": {"instance"},
    "changewire_instances": {"state"},
    "changewire_watchers_without_instance": set(),
    "changewire_build_info": {"version"},
}


@pytest.fixture
def observer() -> PrometheusObserver:
    return PrometheusObserver(version="1.2.3", clock=lambda: NOW)


def change(operation: str = "insert", wall_time: float = NOW) -> Change:
    return Change("82", operation, b"{}", wall_time, "82")


def batch(watcher: str, *changes: Change, collection: str = "orders") -> Published:
    operations = {each.operation for each in changes}
    subjects = {operation: f"{watcher.upper()}.{operation}" for operation in operations}
    return Published(watcher, collection, subjects, changes, read_seconds=0.02, publish_seconds=0.01, acked_at=NOW)


def exercise(observer: PrometheusObserver, watcher: str) -> None:
    observer.state(watcher, State.RUNNING)
    observer.published(batch(watcher, change(), change("update"), change()))
    observer.skipped(watcher, "foreign", 2)
    observer.publish_failed(watcher, f"{watcher.upper()}.insert", 3)
    observer.restarted(watcher, "SourceUnavailable")
    observer.position(watcher, lag_seconds=1.5, headroom_seconds=3600)
    observer.history_at_risk(watcher, False)
    observer.overdue(watcher, True)
    observer.dead_letters(watcher, 2)
    observer.snapshot(watcher, running=True)
    observer.checkpointed(watcher, NOW - 4)


def samples(observer: PrometheusObserver) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    text, _ = observer.render()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def value(observer: PrometheusObserver, name: str, **labels: str) -> float | None:
    return samples(observer).get((name, frozenset(labels.items())))


def test_it_is_an_observer(observer: PrometheusObserver) -> None:
    accepted: Observer = observer
    assert accepted is observer


def test_every_metric_of_the_contract_with_its_labels(observer: PrometheusObserver) -> None:
    exercise(observer, "w")
    observer.change_streams(shared=1, own=2, members={"shop": 40})
    observer.instances("a", watchers=3, live=2, gone=1, homeless=4)
    observer.command_started("shop", "getMore")
    observer.command_succeeded("shop", "getMore", 0.1)
    observer.command_failed("shop", "getMore", 0.1)
    seen: dict[str, set[str]] = {}
    for name, labels in samples(observer):
        for known in CONTRACT:
            if name in (known, f"{known}_bucket", f"{known}_sum", f"{known}_count"):
                seen.setdefault(known, set()).update(label for label, _ in labels if label != "le")
    assert seen == CONTRACT


def test_names_are_there_before_the_first_series(observer: PrometheusObserver) -> None:
    text = observer.render()[0].decode()
    for name in CONTRACT:
        assert f"# TYPE {name} " in text


def test_process_platform_and_collector_are_there_and_the_default_registry_is_not_touched() -> None:
    first, second = (PrometheusObserver(version="1") for _ in range(2))
    text, content_type = first.render()
    assert b"python_info" in text
    assert b"python_gc_collections_total" in text
    assert content_type.startswith("text/plain")
    assert second.render()[1] == content_type


def test_a_batch_is_counted(observer: PrometheusObserver) -> None:
    exercise(observer, "w")
    assert value(observer, "changewire_events_total", watcher="w", operation="insert") == 2
    assert value(observer, "changewire_events_total", watcher="w", operation="update") == 1
    assert value(observer, "nats_messages_published_total", subject="W.insert") == 2
    assert value(observer, "nats_messages_failed_total", subject="W.insert") == 3
    assert value(observer, "nats_message_duration_seconds_count", subject="W.insert") == 2
    assert value(observer, "nats_message_duration_seconds_sum", subject="W.insert") == pytest.approx(0.02)
    name = "connector_change_event_processing_duration_seconds"
    assert value(observer, f"{name}_count", collection="orders", subject="W.update") == 1
    assert value(observer, f"{name}_bucket", collection="orders", subject="W.update", le="0.01") == 0
    assert value(observer, f"{name}_bucket", collection="orders", subject="W.update", le="0.025") == 1
    assert value(observer, "changewire_batch_events_sum", watcher="w") == 3
    assert value(observer, "changewire_batch_events_count", watcher="w") == 1


def test_the_rows_of_a_snapshot_are_counted_from_its_beginning_on(observer: PrometheusObserver) -> None:
    observer.snapshot("w", running=True)
    assert value(observer, "changewire_snapshot_documents_total", watcher="w") == 0
    observer.published(batch("w", change("snapshot"), change("snapshot"), change("snapshot_done")))
    observer.snapshot("w", running=False)
    assert value(observer, "changewire_snapshot_documents_total", watcher="w") == 2
    assert value(observer, "changewire_snapshot_running", watcher="w") == 0
    observer.forget("w")
    assert value(observer, "changewire_snapshot_running", watcher="w") is None


def test_the_connectors_buckets_are_the_go_clients(observer: PrometheusObserver) -> None:
    observer.command_succeeded("shop", "find", 0.3)
    bounds = {
        dict(labels)["le"] for name, labels in samples(observer) if name == "mongodb_command_duration_seconds_bucket"
    }
    assert bounds == {
        *".005 .01 .025 .05 .1 .25 .5 1 2.5 5 10".replace(" .", " 0.").replace(".005", "0.005", 1).split(),
        "+Inf",
    }


def test_state_is_one_for_the_current_and_zero_for_the_others(observer: PrometheusObserver) -> None:
    observer.state("w", State.STARTING)
    observer.state("w", State.RUNNING)
    states = {
        dict(labels)["state"]: number for (name, labels), number in samples(observer).items() if name.endswith("_state")
    }
    assert states == {state.value: float(state is State.RUNNING) for state in State}


def test_unknown_positions_have_no_series(observer: PrometheusObserver) -> None:
    observer.position("w", lag_seconds=1, headroom_seconds=2)
    observer.position("w", lag_seconds=0, headroom_seconds=None)
    assert value(observer, "changewire_watcher_lag_seconds", watcher="w") == 0
    assert value(observer, "changewire_watcher_oplog_headroom_seconds", watcher="w") is None


def test_checkpoint_age_is_that_of_the_scrape() -> None:
    now = [NOW]
    observer = PrometheusObserver(version="1", clock=lambda: now[0])
    observer.checkpointed("w", NOW)
    now[0] += 7
    assert value(observer, "changewire_watcher_checkpoint_age_seconds", watcher="w") == 7
    now[0] -= 9
    assert value(observer, "changewire_watcher_checkpoint_age_seconds", watcher="w") == 0


def test_a_database_that_shares_no_longer_has_no_series(observer: PrometheusObserver) -> None:
    observer.change_streams(shared=2, own=3, members={"shop": 40, "stock": 2})
    assert value(observer, "changewire_change_streams", kind="shared") == 2
    assert value(observer, "changewire_change_streams", kind="own") == 3
    observer.change_streams(shared=1, own=5, members={"shop": 40})
    assert value(observer, "changewire_change_streams", kind="own") == 5
    assert value(observer, "changewire_feed_members", database="shop") == 40
    assert value(observer, "changewire_feed_members", database="stock") is None


def test_forgotten_watcher_leaves_nothing(observer: PrometheusObserver) -> None:
    exercise(observer, "kept")
    before = samples(observer).keys()
    exercise(observer, "gone")
    assert any("gone" in str(labels) for _, labels in samples(observer))
    observer.forget("gone")
    observer.forget("never seen")
    ours = {key for key in samples(observer) if not key[0].startswith(("python_", "process_"))}
    assert ours == {key for key in before if not key[0].startswith(("python_", "process_"))}


def test_subject_that_another_watcher_uses_stays(observer: PrometheusObserver) -> None:
    observer.publish_failed("old", "S.insert", 1)
    observer.publish_failed("new", "S.insert", 1)
    observer.forget("old")
    assert value(observer, "nats_messages_failed_total", subject="S.insert") == 2


def test_delays_are_those_of_each_event(observer: PrometheusObserver) -> None:
    delays = [0.0005, 0.001, 0.2, 0.2, 3.0, 100_000.0]
    changes = [change(wall_time=NOW - delay) for delay in delays]
    changes += [change(wall_time=0.0), change(wall_time=NOW + 5)]  # not known; a clock ahead of ours
    random.Random(1).shuffle(changes)
    observer.published(batch("w", *changes))
    assert value(observer, "changewire_event_delay_seconds_count", watcher="w") == 7
    assert value(observer, "changewire_event_delay_seconds_sum", watcher="w") == pytest.approx(sum(delays))
    assert value(observer, "changewire_event_delay_seconds_bucket", watcher="w", le="0.0005") is None
    for le, count in (("0.0025", 3), ("0.1", 3), ("0.25", 5), ("2.5", 5), ("5", 6), ("7200", 6), ("+Inf", 7)):
        assert value(observer, "changewire_event_delay_seconds_bucket", watcher="w", le=le) == count, le


def test_commands_from_many_threads_are_all_counted(observer: PrometheusObserver) -> None:
    def work() -> None:
        for _ in range(2000):
            observer.command_started("shop", "find")
            observer.command_succeeded("shop", "find", 0.001)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for _ in range(20):
        observer.render()
    for thread in threads:
        thread.join()
    assert value(observer, "mongodb_commands_started_total", database="shop", command="find") == 16_000
    assert value(observer, "mongodb_command_duration_seconds_count", database="shop", command="find") == 16_000


def test_odd_names_are_escaped(observer: PrometheusObserver) -> None:
    observer.state('quote"back\\slash', State.PAUSED)
    assert value(observer, "changewire_watcher_state", watcher='quote"back\\slash', state="PAUSED") == 1
