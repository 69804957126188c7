"""What looks like a mistake in the settings is said, and the service starts all the same."""

from app.config.settings import load
from tests.unit.config.conftest import SECRET


def test_unknown_variables_are_warned_about_with_the_nearest_known_name() -> None:
    settings = load(environ={"CHANGEWIRE_BATCHSIZE": "1", "CHANGEWIRE_ZZZ": SECRET, "UNRELATED": "1"})
    assert settings.warnings == (
        "CHANGEWIRE_BATCHSIZE is not a setting; did you mean CHANGEWIRE_BATCH_SIZE?",
        "CHANGEWIRE_ZZZ is not a setting",
    )


def test_names_of_other_programs_are_said_not_to_be_read() -> None:
    settings = load(environ={"MONGODB_URI": "mongodb://h", "NATS_SERVERS": SECRET})
    assert settings.warnings == (
        "MONGODB_URI is not read; the setting is MONGO_URI",
        "NATS_SERVERS is not read; the setting is NATS_URL",
    )
    assert load(environ={"NATS_SERVERS": SECRET, "NATS_URL": "nats://h"}).warnings == ()


def test_anonymous_with_a_token_is_warned_about() -> None:
    environ = {"CHANGEWIRE_ALLOW_ANONYMOUS": "true", "CHANGEWIRE_API_TOKEN": SECRET}
    assert load(environ=environ).warnings == (
        "CHANGEWIRE_ALLOW_ANONYMOUS has no effect where CHANGEWIRE_API_TOKEN is set",
    )
