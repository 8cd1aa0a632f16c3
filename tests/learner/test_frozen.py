"""Frozen policies, and when the proximal one is the one that trains."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM

from learner.anchors import Anchors
from learner.batch import build_batch
from learner.config import AlgorithmConfig
from learner.engine import TrainingEngine
from learner.frozen import FrozenPolicy
from learner.packing import pack_micro_batches
from learner.ranks import Ranks, join_ranks
from learner.update import Updater
from protocol.version import Lineage, PolicyVersion
from tests.learner.learner_kit import learner_config, make_groups, make_model

ALONE = Ranks(0, 1, torch.device("cpu"))
RECOMPUTED = AlgorithmConfig(loss="decoupled_ppo", proximal="recomputed")


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model"))


def load_model(model_dir: Path) -> LlamaForCausalLM:
    return LlamaForCausalLM.from_pretrained(model_dir, dtype=torch.float32, attn_implementation="sdpa")


def frozen(model_dir: Path) -> FrozenPolicy:
    return FrozenPolicy(load_model(model_dir), "auto", ALONE.device)


@pytest.fixture
def engine(model_dir: Path) -> Iterator[TrainingEngine]:
    join_ranks(0, 1, "127.0.0.1", 0)
    engine = TrainingEngine(load_model(model_dir), learner_config(), ALONE)
    yield engine
    engine.close()


def make_parts(model_dir: Path, engine: TrainingEngine, algorithm: AlgorithmConfig, **policies: FrozenPolicy):
    anchors = Anchors(engine, algorithm, 1.0, ALONE, **policies)
    batch = build_batch(make_groups(model_dir, PolicyVersion(1, 0)), Lineage(), PolicyVersion(1, 0))
    micro_batches = pack_micro_batches(batch, range(batch.num_groups), max_tokens=48, attention_cost=0.01)
    return Updater(engine, learner_config(), algorithm, 1.0, ALONE, anchors), batch, micro_batches


def test_a_frozen_policy_stays_while_the_trainer_moves_and_follows_when_it_is_told(model_dir, engine) -> None:
    policy = frozen(model_dir)
    updater, batch, (first, *_) = make_parts(model_dir, engine, AlgorithmConfig())
    at_first = policy.logprobs(first, 1.0)
    torch.testing.assert_close(at_first, engine.plain_logprobs(first, 1.0))
    updater.update(batch, lr=1e-2)
    torch.testing.assert_close(policy.logprobs(first, 1.0), at_first)
    assert (engine.plain_logprobs(first, 1.0) - at_first).abs().max() > 1e-3
    policy.load(engine.iter_weights())
    torch.testing.assert_close(policy.logprobs(first, 1.0), engine.plain_logprobs(first, 1.0))
    assert not policy.logprobs(first, 1.0).requires_grad


def test_weights_that_do_not_fit_are_refused(model_dir, engine) -> None:
    policy = frozen(model_dir)
    with pytest.raises(ValueError, match="not one of the frozen policy's"):
        policy.load([("head.bias", torch.zeros(1))])
    with pytest.raises(ValueError, match="did not come"):
        policy.load(list(engine.iter_weights())[1:])


def test_the_step_after_a_broadcast_has_no_proximal_policy_of_its_own(model_dir, engine) -> None:
    updater, batch, micro_batches = make_parts(model_dir, engine, RECOMPUTED, proximal=frozen(model_dir))
    updater.anchors.hold()
    assert updater.anchors.measure(batch, micro_batches) == {}
    before = engine.plain_logprobs(micro_batches[0], 1.0)
    updater.update(batch, lr=1e-2)
    # One step later it is the policy of the broadcast, and no longer the one that trains.
    proximal_T = updater.anchors.measure(batch, micro_batches)["proximal"]
    torch.testing.assert_close(proximal_T[micro_batches[0].token_index], before)
    # The next broadcast moves it on.
    updater.anchors.hold()
    assert updater.anchors.measure(batch, micro_batches) == {}
    later = engine.plain_logprobs(micro_batches[0], 1.0)
    updater.update(batch, lr=1e-2)
    proximal_T = updater.anchors.measure(batch, micro_batches)["proximal"]
    torch.testing.assert_close(proximal_T[micro_batches[0].token_index], later)
    assert (later - before).abs().max() > 1e-3


def test_the_interpolated_policy_lies_at_the_broadcast_or_where_it_is_put(model_dir, engine) -> None:
    held, generator, lags = torch.tensor([-1.0]), torch.tensor([-2.0]), torch.tensor([4])
    for lag, expected in ((None, [-1.0, -1.25]), (2, [-1.5, -1.5])):
        algorithm = AlgorithmConfig(loss="decoupled_ppo", proximal="interpolated", proximal_lag=lag)
        updater, batch, _ = make_parts(model_dir, engine, algorithm)
        found = [updater.anchors.interpolated(held, generator, lags)]
        updater.update(batch, lr=1e-3)
        found.append(updater.anchors.interpolated(held, generator, lags))
        assert torch.cat(found).tolist() == pytest.approx(expected)


def test_the_mask_is_of_the_whole_batch(model_dir, engine) -> None:
    updater, batch, micro_batches = make_parts(model_dir, engine, AlgorithmConfig(loss="m2po", m2_threshold=1e-9))
    assert len(micro_batches) > 1
    kept = updater.anchors.measure(batch, micro_batches)["kept"]
    assert kept.shape == (batch.num_tokens,)
    assert kept.dtype == torch.bool


@pytest.mark.parametrize(("options", "name"), [({"kl_coefficient": 0.1}, "reference"), (None, "proximal")])
def test_a_policy_that_the_algorithm_needs_must_be_there(model_dir, engine, options, name) -> None:
    algorithm = RECOMPUTED if options is None else AlgorithmConfig(**options)
    with pytest.raises(ValueError, match=f"asks for a {name} policy"):
        Anchors(engine, algorithm, 1.0, ALONE)
