from __future__ import annotations

import asyncio
from collections.abc import Iterator

import numpy as np
import pytest
import torch
import xxhash

from learner.publisher import WeightCopy, WeightPublisher
from protocol.codec import encode
from protocol.endpoint import Client
from protocol.errors import RefusedError
from protocol.messages import Chunk, Fetch, WeightManifest
from protocol.version import PolicyVersion


class Weights:
    """A source of three weights: 6 bytes, 4 bytes, 12 bytes."""

    def __init__(self) -> None:
        self.tensors = {
            "a.weight": torch.tensor([1.0, 2.0, 3.0], dtype=torch.bfloat16),
            "b.bias": torch.tensor([0.5], dtype=torch.float32),
            # Not contiguous: what is served must be in the order of the shape.
            "c.weight": torch.arange(6, dtype=torch.bfloat16).reshape(3, 2).t(),
        }

    @property
    def num_weight_bytes(self) -> int:
        return 22

    def iter_weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        yield from self.tensors.items()


@pytest.fixture
def manifests() -> list[WeightManifest]:
    return []


@pytest.fixture
def publisher(manifests: list[WeightManifest]) -> Iterator[WeightPublisher]:
    publisher = WeightPublisher("127.0.0.1", manifests.append)
    yield publisher
    publisher.close()


def fetch(publisher: WeightPublisher, *requests: Fetch) -> list[Chunk]:
    async def ask() -> list[Chunk]:
        client = Client(publisher.address)
        try:
            return [await client.request(request, 5) for request in requests]
        finally:
            await client.close()

    return asyncio.run(ask())


def test_chunks_put_together_are_the_weights_and_match_their_checksums(publisher, manifests) -> None:
    source, version = Weights(), PolicyVersion(1, 4)
    publisher.publish(version, source)
    publisher.wait()
    (manifest,) = manifests
    assert manifest.names == ["a.weight", "b.bias", "c.weight"]
    assert manifest.dtypes == ["bfloat16", "float32", "bfloat16"]
    assert manifest.shapes == [[3], [1], [2, 3]]
    assert manifest.sizes == [6, 4, 12]
    # Chunks of 8 bytes cut through every weight; the last has 22 - 16 = 6.
    chunks = fetch(publisher, *(Fetch(version=version, offset=offset, size=8) for offset in (0, 8, 16)))
    assert [len(chunk.data) for chunk in chunks] == [8, 8, 6]
    data = np.concatenate([chunk.data for chunk in chunks])
    parts = np.split(data, [6, 10])
    assert [xxhash.xxh3_64_hexdigest(part) for part in parts] == manifest.checksums
    for part, tensor in zip(parts, source.tensors.values(), strict=True):
        received = torch.frombuffer(bytearray(part), dtype=tensor.dtype).view(tensor.shape)
        assert torch.equal(received, tensor)


def test_what_is_published_does_not_follow_the_weights(publisher, manifests) -> None:
    source, version = Weights(), PolicyVersion(1, 0)
    publisher.publish(version, source)
    source.tensors["b.bias"].fill_(9.0)
    publisher.wait()
    (chunk,) = fetch(publisher, Fetch(version=version, offset=6, size=4))
    assert chunk.data.view(np.float32).tolist() == [0.5]


def test_the_newest_two_versions_are_served_and_older_ones_are_gone(publisher) -> None:
    for step in range(3):
        publisher.publish(PolicyVersion(1, step), Weights())
    publisher.wait()
    fetch(publisher, *(Fetch(version=PolicyVersion(1, step), offset=0, size=4) for step in (1, 2)))
    with pytest.raises(RefusedError) as refusal:
        fetch(publisher, Fetch(version=PolicyVersion(1, 0), offset=0, size=4))
    assert refusal.value.code == "version_gone"
    assert "1.1, 1.2" in refusal.value.reason


def test_a_fetch_past_the_end_is_refused(publisher) -> None:
    publisher.publish(PolicyVersion(1, 0), Weights())
    publisher.wait()
    with pytest.raises(RefusedError) as refusal:
        fetch(publisher, Fetch(version=PolicyVersion(1, 0), offset=22, size=1))
    assert refusal.value.code == "bad_offset"


def test_a_failed_announcement_is_raised_at_the_next_publication() -> None:
    def announce(manifest: WeightManifest) -> None:
        raise RefusedError("gone", "no hub")

    publisher = WeightPublisher("127.0.0.1", announce)
    publisher.publish(PolicyVersion(1, 0), Weights())
    with pytest.raises(RefusedError, match="no hub"):
        publisher.publish(PolicyVersion(1, 1), Weights())
    publisher.close()


def test_a_copy_refuses_more_than_it_has_room_for() -> None:
    copy = WeightCopy.allocate(PolicyVersion(1, 0), 4)
    with pytest.raises(ValueError, match=r"needs 8 bytes at 0, the buffer has 4"):
        copy.add("w", torch.zeros(2))


def test_the_memory_of_a_displaced_copy_takes_the_next_one(publisher) -> None:
    for step in range(4):
        publisher.publish(PolicyVersion(1, step), Weights())
    publisher.wait()
    served = fetch(publisher, *(Fetch(version=PolicyVersion(1, step), offset=0, size=22) for step in (2, 3)))
    assert [chunk.version.step for chunk in served] == [2, 3]
    # Two are served and one is free: the fourth took the first one's.
    copies = [*publisher._served.values(), *publisher._displaced]
    assert len({id(copy.data) for copy in copies}) == 3


def test_a_copy_that_is_being_sent_is_not_written_over() -> None:
    copy = WeightCopy.allocate(PolicyVersion(1, 0), 22)
    for name, weight in Weights().iter_weights():
        copy.add(name, weight)
    assert not copy.is_being_sent
    chunk = copy.chunk(4, 8)
    assert copy.is_being_sent
    frames = encode(chunk)
    del chunk
    assert copy.is_being_sent
    del frames
    assert not copy.is_being_sent


def test_a_reader_of_an_old_copy_keeps_its_bytes(publisher) -> None:
    weights = Weights()
    publisher.publish(PolicyVersion(1, 0), weights)
    publisher.wait()
    fetch(publisher, Fetch(version=PolicyVersion(1, 0), offset=0, size=22))  # by then it is served
    held = publisher._served[PolicyVersion(1, 0)].chunk(0, 22)
    before = held.data.copy()
    for tensor in weights.tensors.values():
        tensor.fill_(7.0)
    for step in range(1, 6):
        publisher.publish(PolicyVersion(1, step), weights)
    publisher.wait()
    assert np.array_equal(held.data, before)
