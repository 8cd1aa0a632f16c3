from __future__ import annotations

import json
import math
import threading
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
import xxhash
from safetensors.torch import load_file

from learner.batch import build_batch, split_groups
from learner.checkpoint import list_checkpoints, read_info
from learner.config import AlgorithmConfig
from learner.engine import NonFiniteGradientError
from learner.loop import run_learner
from learner.scripted_hub import ScriptedHub
from protocol.config import ScheduleConfig
from protocol.errors import RefusedError
from protocol.group import Group
from protocol.version import Lineage, PolicyVersion
from telemetry.run_dir import RunDirectory
from tests.learner.learner_kit import learner_config, make_groups, make_model, make_settings, run_ranks

RUN_RANK = Path(__file__).with_name("run_rank.py")


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model"))


def test_events_come_in_order_and_the_next_batch_is_asked_for_before_the_commit(
    model_dir: Path, tmp_path: Path
) -> None:
    hub = ScriptedHub(lambda version: make_groups(model_dir, version))
    settings = make_settings(
        tmp_path,
        model_dir,
        hub.address,
        schedule=ScheduleConfig(steps=3, broadcast_every=2, max_staleness=8),
        learner=learner_config(checkpoint_every=2),
    )
    run_learner(settings, threading.Event())
    hub.close()
    # Publications are announced from a thread of their own, beside the rest.
    order = [event for event in hub.events if event[0] != "publish"]
    assert order == [
        ("pull", "1.0"),
        ("pull", "1.1"),
        ("commit", "1.1"),
        ("pull", "1.2"),
        ("commit", "1.2"),
        ("snapshot", "1.2"),
        ("settle", "1.2"),
        ("commit", "1.3"),
        ("snapshot", "1.3"),
        ("settle", "1.3"),
    ]
    assert [str(manifest.version) for manifest in hub.manifests] == ["1.0", "1.2"]


def test_a_run_holds_the_policy_of_the_last_broadcast_and_the_model_of_its_start(
    model_dir: Path, tmp_path: Path
) -> None:
    hub = ScriptedHub(lambda version: make_groups(model_dir, version))
    settings = make_settings(
        tmp_path,
        model_dir,
        hub.address,
        schedule=ScheduleConfig(steps=4, broadcast_every=2, max_staleness=8),
        learner=learner_config(gradient_cosine_every=2),
        algorithm=AlgorithmConfig(
            loss="decoupled_ppo",
            proximal="recomputed",
            clip_low=1e-4,
            clip_high=1e-4,
            mask_high=None,
            kl_coefficient=0.01,
        ),
    )
    run_learner(settings, threading.Event())
    hub.close()
    found = [record["diagnostics"] for record in RunDirectory.open(tmp_path).read_metrics()]
    # Right after a broadcast, and where the start is the present, every ratio is 1; a step later none of them is.
    assert [one["clipped"] > 0 for one in found] == [False, True, False, True]
    assert [one["kl_reference"] > 1e-6 for one in found] == [False, True, True, True]
    # All groups of a step have one lag here, so that there is no fresher half.
    assert not any("gradient_cosine" in one for one in found)


def test_the_cosine_of_gradients_is_measured_every_so_many_steps(model_dir: Path, tmp_path: Path) -> None:
    def groups_of_two_versions(version: PolicyVersion) -> list[Group]:
        groups = make_groups(model_dir, version)
        newer = [np.full_like(group.span_steps, min(version.step, 1)) for group in groups[:2]]
        return [
            msgspec.structs.replace(group, span_steps=steps) for group, steps in zip(groups, newer, strict=False)
        ] + groups[2:]

    hub = ScriptedHub(groups_of_two_versions)
    settings = make_settings(tmp_path, model_dir, hub.address, learner=learner_config(gradient_cosine_every=2))
    run_learner(settings, threading.Event())
    hub.close()
    found = [record["diagnostics"].get("gradient_cosine") for record in RunDirectory.open(tmp_path).read_metrics()]
    assert [cosine is None for cosine in found] == [True, False, True, False]


def test_every_step_leaves_a_record_of_the_contract(model_dir: Path, tmp_path: Path) -> None:
    hub = ScriptedHub(lambda version: make_groups(model_dir, version))
    settings = make_settings(
        tmp_path, model_dir, hub.address, learner=learner_config(warmup_steps=4, entropy=True), temperature=0.7
    )
    run_learner(settings, threading.Event())
    hub.close()
    records = RunDirectory.open(tmp_path).read_metrics()
    assert [record["step"] for record in records] == [1, 2, 3, 4]
    assert hub.records == records, "those who watch from elsewhere read what is in the file"
    # Warm-up over four steps to 1e-2: a quarter more with each.
    assert [record["lr"] for record in records] == pytest.approx([0.0025, 0.005, 0.0075, 0.01])
    # The script's groups come from version 1.0, so that their lag is the number of steps before.
    assert [record["lag_max"] for record in records] == [0, 1, 2, 3]
    assert records[0]["logprob_diff_mean"] is not None
    assert records[1]["logprob_diff_mean"] is None
    for record in records:
        assert record["groups"] == 4
        # Lengths 4, 2 + i, 5 for i in 0...3: 4 * 9 + 2 * 4 + 6 = 50 tokens of 12 completions.
        assert record["tokens_trained"] == 50
        assert record["completion_tokens_mean"] == pytest.approx(50 / 12)
        assert record["actors"] == 1
        assert 0 < record["diagnostics"]["entropy"] < math.log(64)
        assert record["train_s"] > 0
        assert record["diagnostics"]["micro_batches"] > 1


def test_trainer_and_generator_agree_on_the_first_batch(model_dir: Path, tmp_path: Path) -> None:
    hub = ScriptedHub(lambda version: make_groups(model_dir, version))
    run_learner(make_settings(tmp_path, model_dir, hub.address, schedule=ScheduleConfig(steps=1)), threading.Event())
    hub.close()
    (record,) = RunDirectory.open(tmp_path).read_metrics()
    assert record["logprob_diff_mean"] < 1e-5
    assert record["ratio_mean"] == pytest.approx(1.0, abs=1e-4)
    assert record["ess_fraction"] == pytest.approx(1.0, abs=1e-4)


def test_stop_while_waiting_writes_a_checkpoint_and_returns(model_dir: Path, tmp_path: Path) -> None:
    stop = threading.Event()

    def groups_then_stop(version: PolicyVersion) -> list[Group]:
        if version.step == 2:
            stop.set()
            raise RefusedError("empty", "not yet")
        return make_groups(model_dir, version)

    hub = ScriptedHub(groups_then_stop)
    run_learner(make_settings(tmp_path, model_dir, hub.address), stop)
    hub.close()
    # A publication may be announced after it.
    assert [event for event in hub.events if event[0] != "publish"][-1][0] == "settle"
    (path,) = list_checkpoints(tmp_path)
    assert read_info(path).version in (PolicyVersion(1, 1), PolicyVersion(1, 2))


def test_the_loop_asks_again_after_empty_and_ends_after_exhausted(model_dir: Path, tmp_path: Path) -> None:
    answers = iter(["empty", "empty", "batch", "exhausted"])

    def scripted(version: PolicyVersion) -> list[Group] | None:
        answer = next(answers)
        if answer == "empty":
            raise RefusedError("empty", "not yet")
        return make_groups(model_dir, version) if answer == "batch" else None

    hub = ScriptedHub(scripted)
    run_learner(make_settings(tmp_path, model_dir, hub.address), threading.Event())
    hub.close()
    commits = [event for event in hub.events if event[0] in ("commit", "settle")]
    assert commits == [("commit", "1.1"), ("settle", "1.1")]


def test_a_loss_that_is_not_finite_stops_before_anything_is_committed(model_dir: Path, tmp_path: Path) -> None:
    def poisoned(version: PolicyVersion) -> list[Group]:
        groups = make_groups(model_dir, version)
        if version.step == 1:
            # The largest finite number: the loss overflows in the sum.
            rewards = np.array([3e38, -3e38, 3e38], dtype=np.float32)
            groups[0] = msgspec.structs.replace(groups[0], rewards=rewards)
        return groups

    hub = ScriptedHub(poisoned)
    with pytest.raises(NonFiniteGradientError, match=r"step 2, batch batch-1\.1: .*Nothing of this step was committed"):
        run_learner(make_settings(tmp_path, model_dir, hub.address), threading.Event())
    hub.close()
    assert [event for event in hub.events if event[0] in ("commit", "settle")] == [("commit", "1.1")]
    assert [str(manifest.version) for manifest in hub.manifests] == ["1.0", "1.1"]
    note = json.loads((tmp_path / "learner-failure.json").read_text())
    assert (note["step"], note["batch_id"], note["entries"]) == (2, "batch-1.1", ["0:4", "0:5", "0:6", "0:7"])


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("zero_stage", [0, 2])
def test_a_loss_that_is_not_finite_on_another_rank_stops_all_and_leaves_a_note(
    zero_stage: int, model_dir: Path, tmp_path: Path
) -> None:
    def poisoned(version: PolicyVersion) -> list[Group]:
        groups = make_groups(model_dir, version)
        _, (second, *_) = split_groups(build_batch(groups, Lineage(), version).group_tokens(), 2)
        rewards = np.array([3e38, -3e38, 3e38], dtype=np.float32)
        groups[second] = msgspec.structs.replace(groups[second], rewards=rewards)
        return groups

    hub = ScriptedHub(poisoned)
    settings = make_settings(tmp_path, model_dir, hub.address, learner=learner_config(zero_stage=zero_stage))
    values = settings.model_dump(mode="json", exclude={"rank", "world_size", "master_port"})
    values["learner"]["ranks"] = 2
    try:
        with pytest.raises(AssertionError, match=r"step 1, batch batch-1\.0: the loss of groups .* is not finite"):
            run_ranks(RUN_RANK, [json.dumps(values)], 2)
    finally:
        hub.close()
    assert [event for event in hub.events if event[0] in ("commit", "settle")] == []
    note = json.loads((tmp_path / "learner-failure.json").read_text())
    assert (note["step"], note["batch_id"]) == (1, "batch-1.0")


def test_published_weights_are_those_of_the_checkpoint(model_dir: Path, tmp_path: Path) -> None:
    hub = ScriptedHub(lambda version: make_groups(model_dir, version))
    run_learner(
        make_settings(tmp_path, model_dir, hub.address, learner=learner_config(checkpoint_every=1)), threading.Event()
    )
    hub.close()
    last = hub.manifests[-1]
    saved = load_file(tmp_path / "checkpoints" / f"step-{last.version.step:06d}" / "model" / "model.safetensors")
    assert "lm_head.weight" not in last.names
    assert sorted(last.names) == sorted(saved)
    sums = dict(zip(last.names, last.checksums, strict=True))
    assert {name: xxhash.xxh3_64_hexdigest(weight.numpy()) for name, weight in saved.items()} == sums


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_ranks_go_through_the_loop_as_one(model_dir: Path, tmp_path: Path) -> None:
    finals = {}
    for num_ranks in (1, 2):
        hub = ScriptedHub(lambda version: make_groups(model_dir, version))
        settings = make_settings(
            tmp_path / str(num_ranks),
            model_dir,
            hub.address,
            # A large eps: without it Adam makes much of rounding in small gradients.
            learner=learner_config(zero_stage=2, checkpoint_every=2, eps=1e-2),
            schedule=ScheduleConfig(steps=3, max_staleness=8),
        )
        values = settings.model_dump(mode="json", exclude={"rank", "world_size", "master_port"})
        values["learner"]["ranks"] = num_ranks
        try:
            run_ranks(RUN_RANK, [json.dumps(values)], num_ranks)
        finally:
            hub.close()
        assert [event for event in hub.events if event[0] == "settle"] == [("settle", "1.2"), ("settle", "1.3")]
        checkpoint = list_checkpoints(tmp_path / str(num_ranks))[-1]
        assert len(list(checkpoint.glob("optimizer-rank*.safetensors"))) == num_ranks
        finals[num_ranks] = load_file(checkpoint / "model" / "model.safetensors")
    for name, weight in finals[2].items():
        torch.testing.assert_close(weight, finals[1][name], atol=1e-5, rtol=1e-4)
