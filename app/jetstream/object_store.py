"""Bodies that no message can hold, in the NATS Object Store.

One bucket a stream, one object a change, named by the token. Storing is idempotent: an object of the same size and
digest is left alone, so that a consumer who reads it meanwhile is not disturbed by a retry.
"""

import asyncio
import base64
import hashlib

import nats.errors
from nats.js.api import ObjectMeta, ObjectMetaOptions, ObjectStoreConfig
from nats.js.errors import APIError, BucketNotFoundError, DigestMismatchError, NotFoundError, ObjectNotFoundError
from nats.js.object_store import ObjectStore as Bucket

from app.domain.errors import SinkUnavailable, StreamRefused
from app.jetstream.connection import NatsConnection

CHUNK_BYTES = 128 * 1024
REQUEST_SECONDS = 5.0
FETCH_SECONDS = 30.0


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
