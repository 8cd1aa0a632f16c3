"""What can be checked of the GPU transports without a GPU: the calls read from a manifest, and who refuses what."""

from __future__ import annotations

import asyncio
import base64
import json
import pickle

import pytest
import torch

from actors.gpu_transfer import GpuTransfer, read_calls
from protocol.errors import WeightsError
from protocol.messages import WeightManifest
from protocol.version import PolicyVersion


def manifest(transport: str, address: str) -> WeightManifest:
    return WeightManifest(
        version=PolicyVersion(1, 4),
        transport=transport,
        address=address,
        names=["w"],
        dtypes=["bfloat16"],
        shapes=[[2]],
        sizes=[4],
        checksums=[""],
    )


def test_handles_come_back_with_their_types_and_go_on_as_vllm_wants_them():
    parts = [{"type": "torch.Tensor"}, [2], {"type": "bfloat16"}, {"bytes": base64.b64encode(b"cuda").decode()}]
    calls = {"init": {"packed": False}, "update": {"names": ["w"], "ipc_handles": [{"GPU-1": parts}]}}
    init, update = read_calls(manifest("ipc", json.dumps(calls)))
    assert init == {"packed": False}
    (handle,) = pickle.loads(base64.b64decode(update["ipc_handles_pickled"]))
    assert handle["GPU-1"] == (torch.Tensor, [2], torch.bfloat16, b"cuda")


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "{}", '{"init": {}, "update": {"x": {"type": "os.system"}}}'])
def test_a_manifest_that_does_not_hold_the_calls_is_refused(address):
    with pytest.raises(WeightsError, match="how to receive by nccl"):
        read_calls(manifest("nccl", address))


@pytest.mark.slow  # importing vLLM takes seconds
def test_nccl_shakes_hands_once_with_a_rank_of_the_actors_own():
    events = []

    class FakeEngine:
        def __getattr__(self, name):
            async def call(request=None, weight_version=None):
                events.append((name, getattr(request, "init_info", None), weight_version))

            return call

    calls = json.dumps({"init": {"rank_offset": 1, "world_size": 4}, "update": {"names": ["w"]}})

    async def scenario():
        transfer = GpuTransfer(index=2)
        for _ in range(2):
            await transfer.receive(FakeEngine(), manifest("nccl", calls))

    asyncio.run(scenario())
    # the learner is rank 0, actors 0, 1, 2 are ranks 1, 2, 3
    assert events[0] == ("init_weight_transfer_engine", {"rank_offset": 3, "world_size": 4}, None)
    update = ["start_weight_update", "update_weights", "finish_weight_update"]
    assert [name for name, *_ in events[1:]] == update * 2
    assert events[-1][2] == "1.4"
