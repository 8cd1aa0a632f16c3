"""The receiver against a publisher that serves, hangs, forgets and damages."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import numpy as np
import pytest
import torch

from actors.snapshots import SnapshotStore, remove_orphans
from actors.weights import WeightReceiver, describe_mismatch
from protocol.config import WeightsConfig
from protocol.messages import WeightManifest
from protocol.version import PolicyVersion
from tests.actors.fakes import FakePublisher, weight_bytes

V0, V1, V2 = (PolicyVersion(1, step) for step in range(3))


@pytest.fixture
def module():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.Linear(64, 3)).to(torch.bfloat16)


class Line:
    """A publisher and a receiver at work."""

    def __init__(self, folder, **weights) -> None:
        self.publisher = FakePublisher()
        self.receiver = WeightReceiver(WeightsConfig(**({"chunk_bytes": 4096} | weights)), "actor-0", folder)

    async def until_asked(self, num_fetches: int) -> None:
        while len(self.publisher.fetches) < num_fetches:
            await asyncio.sleep(0.001)


@contextlib.asynccontextmanager
async def receiving(folder, **weights) -> AsyncIterator[Line]:
    line = Line(folder, **weights)
    task = asyncio.create_task(line.receiver.run())
    try:
        yield line
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await line.receiver.close()
        await line.publisher.close()


def test_a_snapshot_holds_the_bytes_and_the_version(module, tmp_path):
    async def scenario():
        async with receiving(tmp_path) as line:
            manifest = line.publisher.publish(V1, module)
            line.receiver.offer(manifest)
            snapshot = await line.receiver.take()
            assert snapshot.version == V1
            assert np.array_equal(np.fromfile(snapshot.path, np.uint8), weight_bytes(module))
            # 64*64 + 64 + 64*3 + 3 numbers of 2 bytes in chunks of 4096
            assert manifest.num_bytes == 8710
            assert sorted(fetch.size for fetch in line.publisher.fetches) == [518, 4096, 4096]
            assert line.receiver.fetched_bytes == 8710
        assert list(tmp_path.iterdir()) == []

    asyncio.run(scenario())


def test_no_more_chunks_are_asked_for_at_once_than_the_window_allows(module, tmp_path):
    async def scenario():
        async with receiving(tmp_path, fetch_window=2) as line:
            line.publisher.gate.clear()
            line.receiver.offer(line.publisher.publish(V0, module))
            await line.until_asked(2)
            await asyncio.sleep(0.02)
            assert len(line.publisher.fetches) == 2
            line.publisher.gate.set()
            await line.receiver.take()

    asyncio.run(scenario())


def test_a_newer_manifest_displaces_a_fetch_that_has_hardly_begun(module, tmp_path):
    async def scenario():
        async with receiving(tmp_path, fetch_window=1) as line:
            line.publisher.gate.clear()
            line.receiver.offer(line.publisher.publish(V0, module))
            await line.until_asked(1)
            line.receiver.offer(line.publisher.publish(V2, module))
            line.receiver.offer(line.publisher.publish(V1, module))  # older than the newest known: ignored
            line.publisher.gate.set()
            assert (await line.receiver.take()).version == V2
            assert V1 not in {fetch.version for fetch in line.publisher.fetches}

    asyncio.run(scenario())


def test_a_version_that_is_gone_is_given_up_for_the_next(module, tmp_path):
    async def scenario():
        async with receiving(tmp_path) as line:
            manifest = line.publisher.publish(V0, module)
            del line.publisher.data[V0]
            line.receiver.offer(manifest)
            await line.until_asked(1)
            line.receiver.offer(line.publisher.publish(V1, module))
            assert (await line.receiver.take()).version == V1

    asyncio.run(scenario())


def test_damaged_bytes_are_noticed_and_fetched_again(module, tmp_path, caplog):
    async def scenario():
        async with receiving(tmp_path) as line:
            manifest = line.publisher.publish(V0, module)
            line.publisher.data[V0][8200] ^= 1  # within the second layer's weight
            line.receiver.offer(manifest)
            await line.until_asked(3)
            while "damaged" not in caplog.text:
                await asyncio.sleep(0.01)
            line.publisher.data[V0][8200] ^= 1
            assert (await line.receiver.take()).version == V0

    asyncio.run(scenario())
    assert "0.bias of version 1.0 arrived damaged" in caplog.text or "1.weight of version 1.0" in caplog.text


def test_a_snapshot_nobody_took_is_replaced_by_the_next_and_its_file_used_again(module, tmp_path):
    async def scenario():
        async with receiving(tmp_path) as line:
            for version in (V0, V1, V2):
                line.receiver.offer(line.publisher.publish(version, module))
                while line.receiver._done != version:
                    await asyncio.sleep(0.001)
            assert (await line.receiver.take()).version == V2
            assert len(list(tmp_path.iterdir())) == 2

    asyncio.run(scenario())


def test_a_manifest_whose_sizes_do_not_follow_from_its_shapes_is_ignored(module, tmp_path):
    manifest = WeightManifest(
        version=V0,
        transport="zmq",
        address="tcp://x",
        names=["w"],
        dtypes=["bfloat16"],
        shapes=[[2, 3]],
        sizes=[13],
        checksums=["0" * 16],
    )
    assert describe_mismatch(manifest) == "w has 13 bytes, expected 12 for bfloat16[2, 3]"

    async def scenario():
        async with receiving(tmp_path) as line:
            line.receiver.offer(manifest)
            line.receiver.offer(line.publisher.publish(V1, module))
            assert (await line.receiver.take()).version == V1

    asyncio.run(scenario())


def test_files_of_a_dead_actor_are_removed_and_those_of_a_living_one_are_not(tmp_path):
    store = SnapshotStore("r" * 300 + "-actor-1", tmp_path)
    living = store.take(100)
    orphan = tmp_path / "rapid-weights-actor_0-abc"
    orphan.write_bytes(b"x")
    remove_orphans(tmp_path)
    assert living.exists()
    assert not orphan.exists()
    store.close()
    assert list(tmp_path.iterdir()) == []
