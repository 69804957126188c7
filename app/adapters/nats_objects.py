"""Bodies that no message can hold, in the NATS Object Store.

One bucket a stream, one object a change, named by the token. Storing is idempotent: an object of the same size and
digest is left alone, so that a consumer who reads it meanwhile is not disturbed by a retry.
"""

import asyncio
import base64
import hashlib
import re
from urllib.parse import unquote_to_bytes

import nats.errors
from nats.js.api import ObjectMeta, ObjectMetaOptions, ObjectStoreConfig
from nats.js.errors import APIError, BucketNotFoundError, DigestMismatchError, NotFoundError, ObjectNotFoundError
from nats.js.object_store import ObjectStore as Bucket

from app.adapters.nats_connection import NatsConnection
from app.domain.errors import SinkUnavailable, StreamRefused

CHUNK_BYTES = 128 * 1024
REQUEST_SECONDS = 5.0
FETCH_SECONDS = 30.0
_LONGEST_BUCKET = 255 - len("OBJ_")


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
    if len(bucket) > _LONGEST_BUCKET:
        return f"is too long for a bucket of the object store, which would be named {bucket[:40]}…"
    return None


def _escape(character: str) -> str:
    return "__" if character == "_" else "".join(f"_{byte:02X}" for byte in character.encode())


class ObjectStore:
    """The account's object store, through nats-py."""

    def __init__(self, connection: NatsConnection) -> None:
        self._connection = connection

    async def store(self, bucket: str, name: str, body: bytes, *, replicas: int) -> None:
        """Make sure that the bucket holds `body` under `name`; create the bucket where it is missing.

        Raises SinkUnavailable, StreamRefused.
        """
        try:
            store = await self._bucket(bucket, replicas)
            if await self._holds(store, name, body):
                return
            chunk = min(CHUNK_BYTES, self._connection.max_payload)
            await store.put(name, body, ObjectMeta(name=name, options=ObjectMetaOptions(max_chunk_size=chunk)))
        except (APIError, BucketNotFoundError) as error:
            raise StreamRefused(f"the object store {bucket} refuses the change {name}: {error}") from error
        except (nats.errors.Error, OSError, TimeoutError) as error:
            raise SinkUnavailable(f"the object store {bucket} cannot be reached: {error}") from error

    async def fetch(self, bucket: str, name: str) -> bytes | None:
        """Return an object, None where it is not there, or not whole. Raises SinkUnavailable."""
        try:
            stream = self._connection.client().jetstream(timeout=REQUEST_SECONDS)
            async with asyncio.timeout(FETCH_SECONDS):
                return (await (await stream.object_store(bucket)).get(name)).data or b""
        except (BucketNotFoundError, NotFoundError, ObjectNotFoundError, DigestMismatchError):
            return None
        except (nats.errors.Error, OSError, TimeoutError) as error:
            raise SinkUnavailable(f"the object store {bucket} cannot be reached: {error}") from error

    async def delete(self, bucket: str, name: str) -> None:
        """Delete an object, which need not exist. Raises SinkUnavailable, StreamRefused."""
        try:
            stream = self._connection.client().jetstream(timeout=REQUEST_SECONDS)
            await (await stream.object_store(bucket)).delete(name)
        except (BucketNotFoundError, NotFoundError, ObjectNotFoundError):
            return
        except APIError as error:
            raise StreamRefused(f"the object store {bucket} refuses to delete {name}: {error}") from error
        except (nats.errors.Error, OSError, TimeoutError) as error:
            raise SinkUnavailable(f"the object store {bucket} cannot be reached: {error}") from error

    async def _bucket(self, bucket: str, replicas: int) -> Bucket:
        stream = self._connection.client().jetstream(timeout=REQUEST_SECONDS)
        try:
            return await stream.object_store(bucket)
        except BucketNotFoundError:
            return await stream.create_object_store(
                bucket, ObjectStoreConfig(description="Changewire: bodies too large for a message", replicas=replicas)
            )

    async def _holds(self, store: Bucket, name: str, body: bytes) -> bool:
        try:
            info = await store.get_info(name)
        except NotFoundError:
            return False
        digest = base64.urlsafe_b64encode(hashlib.sha256(body).digest()).decode()
        return info.size == len(body) and (info.digest or "").partition("=")[2] == digest
