"""Names of buckets: valid for NATS, and each of one stream."""

import pytest

from app.domain.buckets import bucket_of, stream_of


@pytest.mark.parametrize("name", ["ORDERS", "A_B", "A__B", "_", "é_x", "x_é", "%24a", "a-b", "ü$%_41", "A_41"])
def test_a_buckets_name_is_valid_and_gives_the_streams_back(name: str) -> None:
    bucket = bucket_of(name)
    assert bucket.replace("_", "").replace("-", "").isalnum() or set(bucket) == {"_"}
    assert bucket.isascii()
    assert stream_of(bucket) == name
