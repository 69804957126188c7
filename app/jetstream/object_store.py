"""Bodies that no message can hold, in the NATS Object Store.

One bucket per stream, one object per change, named by the token. Storing is idempotent: an object of the same size and
digest is left alone, so that a retry does not disturb a consumer that reads it meanwhile.
"""

import asyncio
import base64
import hashlib

from nats.js.api import ObjectMeta, ObjectMetaOptions, ObjectStoreConfig
from nats.js.client import JetStreamContext
from nats.js.errors import BucketNotFoundError, DigestMismatchError, NotFoundError
from nats.js.object_store import ObjectStore as Bucket

from app.jetstream.connection import NatsConnection
from app.jetstream.errors import bucket_refusals

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
        with bucket_refusals(bucket, f"the change {name}"):
            store = await self._bucket(bucket, replicas)
            if await self._holds(store, name, body):
                return
            chunk = min(CHUNK_BYTES, self._connection.max_payload)
            await store.put(name, body, ObjectMeta(name=name, options=ObjectMetaOptions(max_chunk_size=chunk)))

    async def fetch(self, bucket: str, name: str) -> bytes | None:
        """Return an object, None where it is not there, or not whole. Raises SinkUnavailable."""
        with bucket_refusals(bucket):
            try:
                async with asyncio.timeout(FETCH_SECONDS):
                    return (await (await self._jetstream().object_store(bucket)).get(name)).data or b""
            except (NotFoundError, DigestMismatchError):
                return None

    async def delete(self, bucket: str, name: str) -> None:
        """Delete an object, which need not exist. Raises SinkUnavailable, StreamRefused."""
        with bucket_refusals(bucket, f"to delete {name}"):
            try:
                await (await self._jetstream().object_store(bucket)).delete(name)
            except NotFoundError:
                return

    def _jetstream(self) -> JetStreamContext:
        return self._connection.client().jetstream(timeout=REQUEST_SECONDS)

    async def _bucket(self, bucket: str, replicas: int) -> Bucket:
        jetstream = self._jetstream()
        try:
            return await jetstream.object_store(bucket)
        except BucketNotFoundError:
            return await jetstream.create_object_store(
                bucket, ObjectStoreConfig(description="Changewire: bodies too large for a message", replicas=replicas)
            )

    async def _holds(self, store: Bucket, name: str, body: bytes) -> bool:
        try:
            info = await store.get_info(name)
        except NotFoundError:
            return False
        digest = base64.urlsafe_b64encode(hashlib.sha256(body).digest()).decode()
        return info.size == len(body) and (info.digest or "").partition("=")[2] == digest
