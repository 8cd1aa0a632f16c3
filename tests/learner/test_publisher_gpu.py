"""What of the GPU publishers can be tried without a GPU: the manifests that stand for vLLM's remote calls."""

from __future__ import annotations

import json

import pytest
import torch

from protocol.version import PolicyVersion

pytestmark = pytest.mark.slow
publisher_gpu = pytest.importorskip("learner.publisher_gpu", reason="needs vllm")


class Weights:
    num_weight_bytes = 12

    def __init__(self) -> None:
        self.tensor = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.bfloat16)

    def iter_weights(self):
        yield "a.weight", self.tensor
        yield "b.weight", self.tensor[0]


def make_client(transport: str):
    source, manifests = publisher_gpu.StagedSource(), []
    return publisher_gpu.ManifestClient(transport, source, manifests.append), source, manifests


def test_the_nccl_handshake_announces_the_first_version_and_each_update_its_own() -> None:
    client, source, manifests = make_client("nccl")
    update = {"names": ["a.weight", "b.weight"], "dtype_names": ["bfloat16"] * 2, "shapes": [[2, 2], [2]]}
    source.stage(Weights())
    client.version = PolicyVersion(1, 0)
    client.init_weight_transfer_engine({"master_address": "127.0.0.1", "master_port": 7, "world_size": 2})
    client.update_weights(update)
    client.version = PolicyVersion(1, 1)
    client.update_weights(update)
    assert [manifest.version.step for manifest in manifests] == [0, 1]
    assert manifests[0].sizes == [8, 4]
    for manifest in manifests:
        assert json.loads(manifest.address) == {
            "init": {"master_address": "127.0.0.1", "master_port": 7, "world_size": 2},
            "update": update,
        }


def test_ipc_handles_travel_as_plain_values() -> None:
    client, source, manifests = make_client("ipc")
    source.stage(Weights())
    client.version = PolicyVersion(1, 0)
    client.init_weight_transfer_engine({"packed": False})
    assert manifests == []
    handle = {"GPU-0": (torch.Tensor, (2,), torch.bfloat16, b"\x00\xff", None, True)}
    client.update_weights(
        {"names": ["b.weight"], "dtype_names": ["bfloat16"], "shapes": [[2]], "ipc_handles": [handle]}
    )
    (sent,) = json.loads(manifests[0].address)["update"]["ipc_handles"]
    assert sent == {"GPU-0": [{"type": "torch.Tensor"}, [2], {"type": "bfloat16"}, {"bytes": "AP8="}, None, True]}


def test_what_is_not_plain_is_refused() -> None:
    with pytest.raises(TypeError, match="holds a object"):
        publisher_gpu.plain(object())


def test_staged_weights_do_not_follow_the_learner() -> None:
    _, source, _ = make_client("ipc")
    weights = Weights()
    source.stage(weights)
    weights.tensor.zero_()
    assert dict(source)["a.weight"].tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert [(meta.name, meta.shape) for meta in source.metadata()] == [("a.weight", (2, 2)), ("b.weight", (2,))]
