"""Buckets of the NATS object store: the name of a stream's bucket, and the streams behind buckets.

NATS keeps an object bucket in the stream `OBJ_<bucket>`, and a key-value bucket in `KV_<bucket>`.
`jetstream/object_store.py` stores objects in them.
"""

import re
from typing import Final
from urllib.parse import unquote_to_bytes

OBJECTS: Final = "OBJ_"
KEYS: Final = "KV_"
LONGEST: Final = 255 - len(OBJECTS)


def bucket_of(stream: str) -> str:
    """Return the bucket of a stream: its name, with characters that a bucket's name cannot hold as `_` and hex digits.

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
        return f"is too long for a bucket of the object store (it would be named {bucket[:40]}…)"
    return None


def behind_problem(stream: str) -> str | None:
    """Say in a sentence why this name looks like the stream behind a bucket, or return None."""
    for prefix, what in ((OBJECTS, "an object store"), (KEYS, "a key-value bucket")):
        if stream.startswith(prefix):
            return f"begins with {prefix}, like the stream behind {what}; choose another name"
    return None


def _escape(character: str) -> str:
    return "__" if character == "_" else "".join(f"_{byte:02X}" for byte in character.encode())
