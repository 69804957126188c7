"""What is suggested: nothing that a watcher would be refused for, in order, and not too much."""

from app.domain.namespaces import Namespaces
from app.domain.suggestions import MOST, is_collection, is_stream, may_be_watched, suggested


def test_names_come_in_order_once_and_not_more_than_a_form_can_show() -> None:
    assert suggested(["b", "a", "b"]).names == ("a", "b")
    many = suggested(f"{number:05}" for number in range(MOST + 1))
    assert (len(many.names), many.more) == (MOST, True)
    assert not suggested(f"{number}" for number in range(MOST)).more
    assert suggested(["a"], more=True).more


def test_system_databases_and_those_of_state_and_positions_are_not_suggested() -> None:
    names = ("admin", "config", "local", "changewire", "ChangeWire", "resume-tokens", "shop")
    assert [each for each in names if may_be_watched(each, "changewire", None)] == ["shop"]


def test_only_what_the_settings_allow_is_suggested() -> None:
    allowed = Namespaces.parse("shop.orders,shop.items_*,crm.*")
    assert [each for each in ("shop", "crm", "hr") if may_be_watched(each, "changewire", allowed)] == ["shop", "crm"]
    names = ("orders", "items_a", "items", "people", "system.views", "a$b")
    assert [each for each in names if is_collection("shop", each, allowed)] == ["orders", "items_a"]
    assert [each for each in names if is_collection("shop", each, None)] == ["orders", "items_a", "items", "people"]


def test_streams_behind_buckets_and_of_dead_letters_are_not_suggested() -> None:
    names = ("ORDERS", "ORDERS-DLQ", "OBJ_ORDERS", "KV_x", "OBJECTS")
    assert [each for each in names if is_stream(each)] == ["ORDERS", "OBJECTS"]
