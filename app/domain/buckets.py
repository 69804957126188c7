"""Buckets of the NATS object store: how a stream's is named, and which streams are behind buckets.

NATS keeps a bucket in a stream of its own, `OBJ_<bucket>`, and a key-value bucket in `KV_<bucket>`. Not its business:
what is in a bucket (`jetstream/object_store.py`).
"""

import re
from typing import Final
from urllib.parse import unquote_to_bytes

OBJECTS: Final = "OBJ_"
KEYS: Final = "KV_"
LONGEST: Final = 255 - len(OBJECTS)


def bucket_of(stream: str) -> str:
    """Return the bucket of a stream: its name, with what a bucket's name cannot hold as `_` and hexadecimal digits.

    `_` itself becomes `__`; `stream_of` gives the stream's name back.
    """
    return re.sub(r"[^A-Za-z0-9-]", lambda found: _escape(found.group()), stream)


def stream_of(bucket: str) -> str:
    """Return the stream that `bucket_of` made the bucket's name from."""
    plain = re.sub(r"__|_", lambda found: "_" if len(found.group()) == 2 else "%", bucket)
    return unquote_to_bytes(plain).decode()


def bucket_problem(bucket: str) -> str | None:
    """Say in a sentence why there can be no bucket of this name, or return None."""
    if len(bucket) > LONGEST:
        return f"is too long for a bucket of the object store, which would be named {bucket[:40]}…"
    return None


def behind_problem(stream: str) -> str | None:
    """Say in a sentence why a stream of this name would be taken for what is behind a bucket, or return None."""
    for prefix, what in ((OBJECTS, "an object store"), (KEYS, "a key-value bucket")):
        if stream.startswith(prefix):
            return f"begins with {prefix}, as the stream behind {what} does; name it otherwise"
    return None


def _escape(character: str) -> str:
    return "__" if character == "_" else "".join(f"_{byte:02X}" for byte in character.encode())
