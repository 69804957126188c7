"""mongodb-nats-connector's file: what it means, and what is said of a wrong one."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.config.connector_yaml import ConnectorFileError, parse, read
from app.domain.checkpoint_place import CheckpointPlace
from app.domain.watcher import Watcher, from_document, to_document

REFERENCE = """\
connector:
  log: {level: "debug"}
  mongo: {uri: "mongodb://m"}
  nats: {url: "nats://n"}
  server: {addr: "127.0.0.1:8080"}
  collections:
    - dbName: "test-connector"
      collName: "coll1"
      changeStreamPreAndPostImages: true
      tokensDbName: "tokens"
      tokensCollName: "coll1-tokens"
      tokensCollCapped: true
      tokensCollSizeInBytes: 4096
      streamName: "STREAM1"
    - dbName: test-connector
      collName: coll2
"""


def place_of(watcher: Watcher) -> CheckpointPlace:
    assert watcher.checkpoint is not None, "mongodb-nats-connector looks for its tokens there"
    return watcher.checkpoint


def refused(text: str) -> str:
    with pytest.raises(ConnectorFileError) as error:
        parse(text)
    return str(error.value)


def collection(lines: str) -> str:
    return f"connector:\n  collections:\n    - dbName: shop\n      collName: orders\n      {lines}\n"


def test_reference_file() -> None:
    file = parse(REFERENCE)
    assert file.settings == {
        "log_level": "debug", "mongo_uri": "mongodb://m", "nats_url": "nats://n", "server_addr": "127.0.0.1:8080",
    }  # fmt: skip
    first, second = file.watchers
    assert first.name == "test-connector.coll1"
    assert (first.source.database, first.source.collection) == ("test-connector", "coll1")
    assert first.source.pre_and_post_images
    assert first.sink.stream == "STREAM1"
    assert first.sink.stream_settings == "connector"
    place = place_of(first)
    assert (place.database, place.collection, place.capped, place.size_in_bytes) == (
        "tokens",
        "coll1-tokens",
        True,
        4096,
    )
    assert second.name == "test-connector.coll2"
    assert second.sink.stream == "COLL2"
    assert place_of(second) == CheckpointPlace("resume-tokens", "coll2")
    assert not second.source.pre_and_post_images
    assert second.sink.operations == ("insert", "update", "replace", "delete")
    assert second.subject("insert") == "COLL2.insert"
    assert file.warnings == ()


@pytest.mark.parametrize(
    "text", ["", "# nothing\n", "connector:\n", "connector: {collections: }", "connector: {log: }"]
)
def test_empty_parts_are_fine(text: str) -> None:
    file = parse(text)
    assert (file.settings, file.watchers) == ({}, ())


def test_anchors_and_merge_keys() -> None:
    file = parse(
        "connector:\n  collections:\n"
        "    - &first {dbName: shop, collName: a, tokensDbName: t}\n"
        "    - {<<: *first, collName: b}\n"
    )
    assert [(w.name, place_of(w).database) for w in file.watchers] == [("shop.a", "t"), ("shop.b", "t")]


def test_numbers_as_names_are_the_names_as_written() -> None:
    (watcher,) = parse("connector: {collections: [{dbName: 2024, collName: 007}]}").watchers
    assert watcher.name == "2024.007"


def test_capped_without_a_size_is_not_capped_and_said_so() -> None:
    file = parse(collection("tokensCollCapped: true"))
    assert not place_of(file.watchers[0]).capped
    assert "tokensCollCapped has no effect without tokensCollSizeInBytes" in file.warnings[0]


def test_size_without_capped_has_no_effect() -> None:
    assert parse(collection("tokensCollSizeInBytes: 4096")).watchers[0].checkpoint == CheckpointPlace(
        collection="orders"
    )


def test_unknown_keys_are_warned_about() -> None:
    file = parse("other: 1\n" + collection("streamname: X"))
    where = "connector.yaml: line 6: connector.collections[0]"
    assert file.warnings == (
        "connector.yaml: line 1: other is not known and is ignored; known are connector",
        f"{where}.streamname is not known and is ignored; did you mean streamName?",
    )
    assert file.watchers[0].sink.stream == "ORDERS"


def test_one_collection_on_two_streams_is_two_watchers_with_a_position_each() -> None:
    entries = ("{dbName: a, collName: b}", "{dbName: a, collName: b, streamName: C}", "{dbName: a, collName: b}")
    file = parse(f"connector: {{collections: [{', '.join(entries)}]}}")
    assert [(one.name, one.sink.stream, place_of(one).namespace) for one in file.watchers] == [
        ("a.b", "B", "resume-tokens.b"),
        ("a.b@C", "C", "resume-tokens.b@C"),
    ]
    (warning,) = file.warnings
    assert "connector.collections[2] publishes a.b to B, as an entry above it does; it has no effect" in warning
    own = parse(f"connector: {{collections: [{entries[0]}, {entries[1][:-1]}, tokensCollName: t}}]}}").watchers[1]
    assert (own.name, place_of(own).namespace) == ("a.b@C", "resume-tokens.t")


def entries(*flow: str) -> str:
    return f"connector: {{collections: [{', '.join(flow)}]}}"


def test_entries_with_one_stream_are_one_watcher_with_a_place_for_each() -> None:
    text = entries(
        "{dbName: a, collName: b, streamName: ALL}",
        "{dbName: a, collName: alone}",
        "{dbName: a, collName: c.d, streamName: ALL, tokensCollName: t, tokensCollCapped: true, "
        "tokensCollSizeInBytes: 8192, changeStreamPreAndPostImages: true}",
    )
    watcher, alone = parse(text).watchers
    assert (watcher.name, alone.name) == ("ALL", "a.alone")
    assert (watcher.source.database, watcher.source.collection, watcher.source.include) == ("a", "", ("b", "c.d"))
    assert watcher.subject("insert") == "ALL.insert"
    assert [one.name for one in watcher.entries] == ["a.b", "a.c.d"]
    assert [place.namespace for place in watcher.places] == ["resume-tokens.b", "resume-tokens.t"]
    assert [place.size_in_bytes for place in watcher.places] == [0, 8192]
    assert [one.source.pre_and_post_images for one in watcher.entries] == [False, True]
    assert from_document(to_document(watcher)) == watcher
    switched = parse(text).with_stream_settings("changewire").watchers[0]
    assert {one.sink.stream_settings for one in (switched, *switched.entries)} == {"changewire"}


def test_entries_of_several_databases_with_one_stream_are_one_watcher_of_the_deployment() -> None:
    (watcher,) = parse(entries("{dbName: a, collName: x}", "{dbName: b, collName: x}")).watchers
    assert (watcher.name, watcher.source.database, watcher.source.include) == ("X", "", ("a.x", "b.x"))


def test_one_collection_on_two_streams_is_in_two_watchers_of_which_one_has_several() -> None:
    one, other = parse(
        entries(
            "{dbName: a, collName: x, streamName: ALL}",
            "{dbName: a, collName: y, streamName: ALL}",
            "{dbName: a, collName: x, streamName: X2}",
        )
    ).watchers
    assert (one.name, one.source.include) == ("ALL", ("x", "y"))
    assert (other.name, place_of(other).namespace) == ("a.x@X2", "resume-tokens.x@X2")


@pytest.mark.parametrize(
    ("second", "said"),
    [
        ("{dbName: a, collName: 'c*', streamName: ALL}", "a.c* holds * or ?"),
        ("{dbName: resume-tokens, collName: c, tokensDbName: t, streamName: ALL}", "where positions are kept"),
    ],
)
def test_entries_that_cannot_be_one_watcher_are_told_with_their_stream(second: str, said: str) -> None:
    with pytest.raises(ConnectorFileError) as error:
        parse(entries("{dbName: a, collName: b, streamName: ALL}", second))
    assert "the entries of stream ALL (a.b, " in str(error.value)
    assert said in str(error.value)
    assert "Give one of them a streamName of its own" in str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("connector: [", "line 1: is not YAML"),
        ("connector:\n\tlog: x", "line 2: is not YAML"),
        ("a: *nowhere", "line 1: is not YAML"),
        ("\x00", "is not YAML"),
        ("just text", "line 1: the file must hold keys and values. Example: connector: …"),
        ("connector: 7", "line 1: connector must hold keys and values"),
        ("connector: {log: debug}", "connector.log must hold keys and values. Example: connector.log.level: …"),
        ("connector: {mongo: {uri: [a]}}", "connector.mongo.uri must be text"),
        ("connector: {collections: {dbName: a}}", "connector.collections must be a list. Example: collections: ["),
        ("connector: {collections: [x]}", "connector.collections[0] must hold keys and values"),
        ("connector: {collections: [null]}", "connector.collections[0] is empty"),
        (
            "connector:\n collections:\n  - collName: a",
            'line 3: connector.collections[0].dbName is missing. Example: dbName: "',
        ),
        ("connector: {collections: [{dbName: a}]}", "connector.collections[0].collName is missing"),
        ("connector: {collections: [{dbName: '', collName: a}]}", "dbName is missing"),
        ("connector: {collections: [{dbName: [a], collName: a}]}", "dbName must be text"),
        (collection("changeStreamPreAndPostImages: 1"), "must be true or false"),
        (collection("tokensCollCapped: 'true'"), "tokensCollCapped must be true or false"),
        (collection("tokensCollSizeInBytes: 4kB"), "tokensCollSizeInBytes must be a whole number. Example: "),
        (collection("tokensCollSizeInBytes: 1.5"), "must be a whole number"),
        (collection("{tokensCollCapped: true"), "is not YAML"),
        (
            collection("tokensCollCapped: true\n      tokensCollSizeInBytes: -1"),
            "line 6: connector.collections[0].tokens",
        ),
        (collection("streamName: a.b"), "streamName holds a character that NATS does not allow"),
        (
            collection("streamName: A\n      streamName: B"),
            "line 6: connector.collections[0].streamName is there twice",
        ),
        (collection("tokensDbName: shop"), "is the watched collection"),
        ("connector: {collections: [{dbName: admin, collName: a}]}", "dbName is admin, a system database"),
    ],
)
def test_wrong_file_is_told_where_and_what(text: str, said: str) -> None:
    message = refused(text)
    assert said in message
    assert message.startswith("connector.yaml: ")


def test_all_problems_are_told() -> None:
    message = refused("connector: {server: {addr: [1]}, collections: [{dbName: a}, {collName: b}]}")
    assert len(message.splitlines()) == 3


def test_many_aliases_do_not_explode() -> None:
    bomb = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 30))
    assert parse(bomb).watchers == ()


def test_reading_a_file(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("\ufeff" + REFERENCE)
    assert len(read(path).watchers) == 2
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConnectorFileError, match="is not UTF-8 text"):
        read(path)
    with pytest.raises(ConnectorFileError, match="is a directory, not a file"):
        read(tmp_path)
    with pytest.raises(ConnectorFileError, match="cannot be read"):
        read(tmp_path / "absent.yaml")
