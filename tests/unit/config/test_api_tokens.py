"""Named tokens and their roles: how they are written, and that none of them is ever shown."""

from __future__ import annotations

import pytest

from app.config.api_tokens import Token, clash, find, parse
from app.config.settings import SettingsError, load

READ, WRITE = "r" * 20, "w" * 20
SECRET = "hunter2hunter2"


def test_tokens_are_read_from_commas_and_lines() -> None:
    text = f"# for the dashboards\nviewer:read:{READ}\n\n deploy:write:{WRITE}, third:read:a:b:{READ}\n"
    assert parse(text) == (
        Token("viewer", "read", READ), Token("deploy", "write", WRITE), Token("third", "read", f"a:b:{READ}"),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (SECRET, "entry 1 is not name:role:token"),
        (f"a:read:{READ},{SECRET}", "entry 2 is not name:role:token"),
        (f"a:{SECRET}", "entry 1 is not name:role:token"),
        (f"a:{SECRET}:read", "neither read nor write"),
        (f"{SECRET}+/=:read:{READ}", "has a name that is not"),
        (f"anonymous:read:{READ}", "named anonymous"),
        ("a:read:short", "less than 16 characters"),
        (f"a:read:{SECRET} {SECRET}", "without spaces"),
        (f"a:read:{SECRET}é{SECRET}", "printable ASCII"),
        ("# nothing", "holds no name:role:token"),
        (f"a:read:{READ},a:write:{WRITE}", "two tokens are named a"),
        (f"a:read:{READ},b:write:{READ}", "a and b have the same token"),
        (f"api:read:{READ}", "two tokens are named api"),
    ],
)
def test_tokens_that_cannot_be_used_are_told_by_their_place_and_never_shown(text: str, said: str) -> None:
    with pytest.raises(SettingsError) as error:
        load(environ={"CHANGEWIRE_API_TOKENS": text, "CHANGEWIRE_API_TOKEN": f"{SECRET}{SECRET}"})
    assert said in str(error.value)
    assert "CHANGEWIRE_API_TOKENS" in str(error.value)
    assert SECRET not in str(error.value)
    assert READ not in str(error.value)


def test_every_token_is_a_secret_of_the_log() -> None:
    settings = load(environ={"CHANGEWIRE_API_TOKENS": f"a:read:{READ},b:write:{WRITE}", "CHANGEWIRE_API_TOKEN": SECRET})
    assert settings.secrets == (SECRET, READ, WRITE)
    assert not {SECRET, READ, WRITE} & set(repr(settings).replace("'", " ").split())
    assert READ not in repr(settings.tokens)


def test_a_name_is_said_though_it_is_the_same_for_all() -> None:
    assert clash([Token("a", "read", READ), Token("b", "read", WRITE)]) is None


def test_the_last_and_the_first_token_are_found_and_half_of_one_is_not() -> None:
    tokens = parse(f"a:read:{READ},b:write:{WRITE}")
    assert [find(tokens, each.secret.encode()) for each in tokens] == list(tokens)
    assert find(tokens, WRITE[:-1].encode()) is None
    assert find(tokens, b"") is None
    assert find((), b"") is None


def test_reads_cannot_be_closed_without_a_key() -> None:
    with pytest.raises(SettingsError, match="CHANGEWIRE_READS_NEED_TOKEN is true and there is no token"):
        load(environ={"CHANGEWIRE_READS_NEED_TOKEN": "true"})


def test_tokens_that_only_read_are_warned_about() -> None:
    warnings = load(environ={"CHANGEWIRE_API_TOKENS": f"a:read:{READ}", "CHANGEWIRE_ALLOW_ANONYMOUS": "1"}).warnings
    assert "CHANGEWIRE_ALLOW_ANONYMOUS has no effect where CHANGEWIRE_API_TOKENS is set" in warnings
    assert any("nothing can be changed over HTTP" in each for each in warnings)
