"""Whether other machines may read without a token, by every combination of the settings that decide it."""

from typing import Any

import pytest
from pydantic import SecretStr

from app.config.exposure import open_reads
from app.config.settings import Settings

TOKEN = {"api_token": SecretStr("t" * 20)}


@pytest.mark.parametrize(
    ("settings", "open_"),
    [
        ({}, False),
        ({"server_addr": "localhost:8080"}, False),
        ({"server_addr": "[::1]:8080"}, False),
        ({"server_addr": ":8080"}, True),
        ({"server_addr": "10.0.0.7:8080"}, True),
        ({"server_addr": ":8080", **TOKEN}, True),
        ({"server_addr": ":8080", "allow_anonymous": True}, True),
        ({"server_addr": ":8080", "reads_need_token": True, **TOKEN}, False),
    ],
)
def test_reads_are_open_where_no_token_keeps_other_machines_out(settings: dict[str, Any], open_: bool) -> None:
    found = open_reads(Settings(**settings))
    assert (found is not None) == open_
    if found is not None:
        assert ("CHANGEWIRE_API_TOKEN" in found[1]) == ("api_token" not in settings)
