"""Receives weights from the learner's publisher, in the background, while generation goes on.

manifest offered ──► fetch chunks, several at once ──► checksum of each tensor ──► snapshot, ready to load
                           │
                           └── newer manifest, "version_gone", damaged bytes, silence: begun anew with the newest
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import mmap
import time
from collections.abc import Callable, Iterator
from math import prod
from pathlib import Path

import xxhash

from actors.engine import WeightSnapshot
from actors.snapshots import SnapshotStore
from protocol.config import WeightsConfig
from protocol.endpoint import Client
from protocol.errors import ProtocolError, RefusedError, WeightsError
from protocol.messages import Chunk, Fetch, WeightManifest
from protocol.version import PolicyVersion

log = logging.getLogger(__name__)

_ITEM_BYTES = {"bfloat16": 2, "float16": 2, "float32": 4, "float64": 8, "int64": 8, "int32": 4, "uint8": 1, "bool": 1}
_RETRY_S = 0.5
_GONE = "version_gone"
# Beyond this share a fetch is finished although newer weights are out: if every version were given up for its
# successor, an actor on a slow line would never get any.
_FINISH_SHARE = 0.5


class _SupersededError(ProtocolError):
    """Newer weights are out, and little of these was fetched."""


class WeightReceiver:
    """Fetches the newest weights that were offered. Used from one event loop, in which `run` is a task.

    Args:
        name: for its files.
        folder: where the files go. None takes shared memory if they fit.
        on_gone: called with a version that the publisher has no more, which is then given up. None asks again until
            newer weights are offered, as there must be some.
    """

    def __init__(
        self,
        config: WeightsConfig,
        name: str,
        folder: Path | None = None,
        on_gone: Callable[[PolicyVersion], None] | None = None,
    ) -> None:
        self._config, self._on_gone = config, on_gone
        self._store = SnapshotStore(name, folder)
        self._newest: WeightManifest | None = None
        self._done: PolicyVersion | None = None
        self._offered = asyncio.Event()
        self._ready: asyncio.Queue[WeightSnapshot] = asyncio.Queue(maxsize=1)
        self._client: Client | None = None
        self._address = ""
        self.fetched_bytes = 0
        """Bytes received since the start."""

    def offer(self, manifest: WeightManifest) -> None:
        """There are weights to be had. Versions no newer than the newest known are ignored."""
        if self._newest is None or manifest.version > self._newest.version:
            self._newest = manifest
            self._offered.set()

    async def take(self) -> WeightSnapshot:
        """Wait for the next snapshot, always the newest that is complete. To be handed back with `release`."""
        return await self._ready.get()

    def release(self, snapshot: WeightSnapshot) -> None:
        """The snapshot is loaded; its file may be overwritten."""
        if snapshot.path is not None:
            self._store.give_back(snapshot.path)

    async def run(self) -> None:
        """Fetch until cancelled. Raises OSError when there is no room for the weights."""
        while True:
            await self._offered.wait()
            self._offered.clear()
            while (manifest := self._newest) is not None and manifest.version != self._done:
                try:
                    await self._fetch(manifest)
                except RefusedError as error:
                    if self._on_gone is None or error.code != _GONE:
                        await self._note_failure(manifest, error)
                    else:
                        self._done = manifest.version
                        self._on_gone(manifest.version)
                except ProtocolError as error:
                    await self._note_failure(manifest, error)

    async def close(self) -> None:
        """Close the connection and remove the files. Idempotent."""
        if self._client is not None:
            await self._client.close()
            self._client = None
        self._store.close()

    async def _note_failure(self, manifest: WeightManifest, error: ProtocolError) -> None:
        """Log it, and wait a moment before the next try."""
        log.warning("fetching weights %s from %s: %s", manifest.version, manifest.address, error)
        # Whoever is told "gone" has a newer manifest already or hears of it presently.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_RETRY_S):
                await self._offered.wait()
        self._offered.clear()

    async def _fetch(self, manifest: WeightManifest) -> None:
        if manifest.transport != "zmq":
            self._finish(WeightSnapshot(manifest.version, manifest, None))
            return
        if error := describe_mismatch(manifest):
            log.error("ignored weights %s: %s", manifest.version, error)
            self._done = manifest.version
            return
        started_s = time.monotonic()
        self._drop_unread()  # or there would be no file left
        path = self._store.take(manifest.num_bytes)
        try:
            await self._receive(manifest, path)
            await asyncio.to_thread(verify_file, manifest, path)
        except BaseException:  # A cancelled fetch must give its file back too.
            self._store.give_back(path)
            raise
        self._finish(WeightSnapshot(manifest.version, manifest, path, time.monotonic() - started_s))

    def _finish(self, snapshot: WeightSnapshot) -> None:
        self._drop_unread()
        self._done = snapshot.version
        self._ready.put_nowait(snapshot)

    def _drop_unread(self) -> None:
        with contextlib.suppress(asyncio.QueueEmpty):
            self.release(self._ready.get_nowait())

    async def _receive(self, manifest: WeightManifest, path: Path) -> None:
        """Write all bytes to the file, `fetch_window` requests at a time. Raises ProtocolError."""
        client = await self._connect(manifest.address)
        offsets = iter(range(0, manifest.num_bytes, self._config.chunk_bytes))
        with path.open("r+b") as file, mmap.mmap(file.fileno(), manifest.num_bytes) as target:
            tasks = [
                asyncio.create_task(self._fetch_chunks(client, manifest, offsets, target))
                for _ in range(self._config.fetch_window)
            ]
            try:
                await asyncio.gather(*tasks)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _fetch_chunks(
        self, client: Client, manifest: WeightManifest, offsets: Iterator[int], target: mmap.mmap
    ) -> None:
        total = manifest.num_bytes
        for offset in offsets:
            if self._newest is not manifest and offset < _FINISH_SHARE * total:
                raise _SupersededError("given up, newer weights are out")
            size = min(self._config.chunk_bytes, total - offset)
            fetch = Fetch(version=manifest.version, offset=offset, size=size)
            chunk = await client.request(fetch, self._config.fetch_timeout_s)
            if not isinstance(chunk, Chunk) or (chunk.offset, len(chunk.data)) != (offset, size):
                raise WeightsError(f"asked for bytes {offset} to {offset + size}, got {type(chunk).__name__} of others")
            target[offset : offset + size] = chunk.data.data
            self.fetched_bytes += size

    async def _connect(self, address: str) -> Client:
        if self._client is not None and self._address != address:
            await self._client.close()
            self._client = None
        if self._client is None:
            self._client, self._address = Client(address), address
        return self._client


def describe_mismatch(manifest: WeightManifest) -> str | None:
    """What is wrong with a manifest whose sizes do not follow from its dtypes and shapes; None if they do."""
    if manifest.num_bytes == 0:
        return "the manifest lists no bytes"
    for name, dtype, shape, size in zip(manifest.names, manifest.dtypes, manifest.shapes, manifest.sizes, strict=True):
        if dtype not in _ITEM_BYTES:
            return f"{name} is {dtype}, expected one of {sorted(_ITEM_BYTES)}"
        if size != prod(shape) * _ITEM_BYTES[dtype]:
            return f"{name} has {size} bytes, expected {prod(shape) * _ITEM_BYTES[dtype]} for {dtype}{shape}"
    return None


def verify_file(manifest: WeightManifest, path: Path) -> None:
    """Raises WeightsError naming the first tensor whose checksum differs."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        view = memoryview(content)
        offset = 0
        try:
            for name, size, expected in zip(manifest.names, manifest.sizes, manifest.checksums, strict=True):
                found = xxhash.xxh3_64_hexdigest(view[offset : offset + size])
                if found != expected:
                    raise WeightsError(
                        f"{name} of version {manifest.version} arrived damaged: checksum {found}, expected {expected}"
                    )
                offset += size
        finally:
            view.release()
