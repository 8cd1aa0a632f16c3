"""The scripted engine: deterministic to the bit, with the lengths and the speed that it is told, and honest numbers."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from actors.config import ActorsConfig, ScriptedConfig
from actors.engine import GenerateRequest, WeightSnapshot
from actors.scripted_engine import ScriptedEngine, draw_lengths, merge_versions, uniform
from protocol.version import PolicyVersion
from tests.actors.fakes import make_llama, manifest_of, weight_bytes

V0, V1 = PolicyVersion(1, 0), PolicyVersion(1, 1)
PROMPT = np.array([5, 6, 7], np.int32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama")
    module = make_llama(folder, tied=True)
    (folder / "weights").write_bytes(weight_bytes(module).tobytes())
    return folder, manifest_of(V0, module, "tcp://")


def request(entry_id: str, seed: int = 0, max_tokens: int = 12) -> GenerateRequest:
    return GenerateRequest(entry_id, PROMPT, 3, max_tokens, 1.0, seed)


class StepClock:
    """Time that passes only where somebody sleeps."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def time(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        self.now_s += seconds


def run(folder, scenario, config: ActorsConfig | None = None, clock=None):
    """What `scenario(engine)` returns, with weights V0 loaded."""

    async def inside():
        engine = ScriptedEngine(folder[0], config or ActorsConfig(engine="scripted"), (1,), clock)
        await engine.start()
        await engine.load_weights(WeightSnapshot(V0, folder[1], folder[0] / "weights"))
        try:
            return await scenario(engine)
        finally:
            await engine.close()

    return asyncio.run(inside())


def same(left, right) -> bool:
    return all(
        np.array_equal(one.token_ids, other.token_ids) and np.array_equal(one.logprobs, other.logprobs)
        for one, other in zip(left, right, strict=True)
    )


def test_a_group_is_the_same_to_the_bit_whatever_else_goes_on(folder):
    alone = run(folder, lambda engine: engine.generate(request("0:3")))

    async def crowd(engine):
        groups = await asyncio.gather(*(engine.generate(request(f"0:{i}")) for i in (9, 3, 5, 1)))
        return groups[1]

    assert same(alone, run(folder, crowd))


def test_entry_seed_and_version_each_change_the_draws(folder):
    async def scenario(engine):
        first = await engine.generate(request("0:3"))
        others = [await engine.generate(request("0:4")), await engine.generate(request("0:3", seed=1))]
        # the same weights under another name
        await engine.load_weights(WeightSnapshot(V1, folder[1], folder[0] / "weights"))
        return first, [*others, await engine.generate(request("0:3"))]

    first, others = run(folder, scenario)
    assert not any(same(first, other) for other in others)


def test_it_is_as_fast_as_it_is_told(folder):
    clock = StepClock()
    config = ActorsConfig(engine="scripted", scripted=ScriptedConfig(tokens_per_s=10))
    group = run(folder, lambda engine: engine.generate(request("0:0")), config, clock)
    # each token costs a tenth of a second
    assert clock.now_s == pytest.approx(sum(len(one.token_ids) for one in group) / 10)


@pytest.mark.parametrize(
    ("config", "low", "high", "mean"),
    [
        (ScriptedConfig(lengths="model"), 40, 40, 40.0),
        # even between 4 and 40: the mean is 22
        (ScriptedConfig(lengths="uniform", min_tokens=4), 4, 40, 22.0),
        # 2 and a tail whose whole part has the mean 1 / (e^(1/5) - 1) = 4.52, hardly ever cut
        (ScriptedConfig(lengths="geometric", min_tokens=2, mean_tokens=5), 2, 40, 6.52),
    ],
)
def test_lengths_follow_their_distribution(config, low, high, mean):
    lengths = draw_lengths(config, GenerateRequest("0:0", PROMPT, 4000, 40, 1.0, 0))
    assert lengths.min() >= low
    assert lengths.max() <= high
    # deviations are at most 10.7; of the mean of 4000 draws 0.17
    assert abs(lengths.mean() - mean) < 0.7


def test_uniform_depends_on_every_part_of_its_key():
    keys = [("a", 1, 2), ("a", 1, 3), ("a", 2, 2), ("b", 1, 2), ("a", 12)]
    assert len({uniform(*key) for key in keys}) == len(keys)
    assert 0.45 < np.mean([uniform("x", i) for i in range(2000)]) < 0.55


def test_runs_of_equal_versions_become_spans():
    assert merge_versions([V0, V0, V1, V1, V1]) == [(V0, 2), (V1, 3)]
