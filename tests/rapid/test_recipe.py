"""Recipes: overrides, and faults told with field, value, expectation and remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from learner.presets import PRESETS, describe_preset
from rapid.errors import ConfigError, UsageError
from rapid.recipe import check_config, load_recipe, shipped_recipes

ROOT = Path(__file__).resolve().parents[2]
TINY = ROOT / "recipes" / "tiny.toml"


def minimal(**sections: dict[str, object]) -> dict[str, object]:
    values: dict[str, object] = {
        "model": {"path": "tiny"},
        "task": {"name": "reasoning_gym", "dataset": "chain_sum"},
    }
    return {**values, **sections}


def problems_of(**sections: dict[str, object]) -> str:
    with pytest.raises(ConfigError) as caught:
        check_config(minimal(**sections), "test")
    return "\n".join(caught.value.problems)


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_shipped_recipe_loads(name: str) -> None:
    assert load_recipe(ROOT / name, []).model.path


def test_overrides_are_toml_values_or_plain_strings() -> None:
    config = load_recipe(TINY, ["learner.lr=1e-5", "run.name=first", "actors.count=2", 'buffer.sampler="fifo"'])
    assert (config.learner.lr, config.run.name, config.actors.count) == (1e-5, "first", 2)


@pytest.mark.parametrize("override", ["learner.lr", "lr=1", ".lr=1", "learner.=1"])
def test_a_malformed_override_says_what_is_expected(override: str) -> None:
    with pytest.raises(UsageError, match=r"expected section\.key=value"):
        load_recipe(TINY, [override])


def test_an_override_cannot_go_below_a_value() -> None:
    with pytest.raises(UsageError, match="path is a value"):
        load_recipe(TINY, ["model.path.x=1"])


def test_an_unknown_key_names_the_nearest() -> None:
    assert "learner.batch_group: unknown key; did you mean learner.batch_groups?" in problems_of(
        learner={"batch_group": 8}
    )
    assert "did you mean learner?" in problems_of(lerner={})
    assert "did you mean task.eval.size?" in problems_of(task={"eval": {"siz": 3}})


def test_an_unknown_choice_names_the_nearest() -> None:
    assert "algorithm.loss = 'decoupled-ppo'" in (text := problems_of(algorithm={"loss": "decoupled-ppo"}))
    assert "did you mean 'decoupled_ppo'?" in text
    assert "did you mean 'alternate'?" in problems_of(schedule={"mode": "alternating"})
    assert "did you mean" not in problems_of(algorithm={"loss": "xyz"})


def test_a_preset_is_answered_with_what_to_write() -> None:
    text = problems_of(algorithm={"loss": "dr_grpo"})
    assert 'write loss = "grpo", baseline = "plain", normaliser = "constant"' in text


@pytest.mark.parametrize(
    ("written", "meant"),
    [("GRPO", "grpo"), ("GSPO", "gspo"), ("decoupledppo", "decoupled_ppo"), ("Rapid", "rapid"), ("ice-pop", "icepop")],
)
def test_a_misspelt_loss_is_answered_with_the_loss(written: str, meant: str) -> None:
    assert f"did you mean {meant!r}?" in problems_of(algorithm={"loss": written})


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("drgrpo", "dr_grpo"),
        ("dr-grpo", "dr_grpo"),
        ("dr_gpro", "dr_grpo"),
        ("dappo", "dapo"),
        ("DAPO", "dapo"),
        ("rlooo", "rloo"),
        ("RLOO", "rloo"),
        ("A3PO", "a3po"),
    ],
)
def test_a_misspelt_preset_is_answered_with_what_to_write(written: str, meant: str) -> None:
    text = problems_of(algorithm={"loss": written})
    assert f"algorithm.loss = {written!r}: not a loss; did you mean {meant!r}?" in text
    assert f"write {describe_preset(meant)}" in text


def test_decoupled_ppo_without_proximal_logprobs_is_refused() -> None:
    assert "algorithm.proximal 'none'" in problems_of(algorithm={"loss": "decoupled_ppo"})


@pytest.mark.parametrize("loss", ["decoupled_ppo", "tis", "icepop"])
@pytest.mark.parametrize("proximal", ["recomputed", "interpolated"])
def test_a_proximal_policy_that_is_always_the_trainer_is_refused(loss: str, proximal: str) -> None:
    algorithm = {"loss": loss, "proximal": proximal}
    text = problems_of(algorithm=algorithm)
    assert f'algorithm.proximal = "{proximal}" with schedule.broadcast_every = 1' in text
    assert 'algorithm.proximal = "interpolated" with algorithm.proximal_lag = 1' in text
    check_config(minimal(algorithm=algorithm, schedule={"broadcast_every": 2}), "test")
    check_config(minimal(algorithm={"loss": loss, "proximal": "interpolated", "proximal_lag": 1}), "test")


def test_every_preset_but_one_runs_at_a_broadcast_every_step() -> None:
    refused = {"areal"}
    for name, switches in PRESETS.items():
        if name not in refused:
            check_config(minimal(algorithm=switches), "test")
        check_config(minimal(algorithm=switches, schedule={"broadcast_every": 2}), "test")
    assert "schedule.broadcast_every of at least 2" in problems_of(algorithm=PRESETS["areal"])


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "*"])
def test_an_address_that_nobody_can_dial_is_refused(host: str) -> None:
    assert "run.host" in problems_of(run={"host": host})


def test_a_wrong_type_names_field_and_value() -> None:
    assert "learner.lr = 'fast'" in problems_of(learner={"lr": "fast"})


def test_a_missing_section_is_named() -> None:
    with pytest.raises(ConfigError, match="model: missing"):
        check_config({"task": {"name": "reasoning_gym", "dataset": "chain_sum"}}, "test")


def test_staleness_below_what_the_broadcast_interval_needs_is_refused() -> None:
    # With a broadcast every 4 steps the 4th update trains on tokens of 3 steps before.
    text = problems_of(schedule={"broadcast_every": 4, "max_staleness": 2})
    assert "schedule.max_staleness = 2" in text
    assert "= 3" in text
    assert "lower broadcast_every to 3" in text


def test_rounds_reach_no_further_than_the_next() -> None:
    rounds = {"mode": "alternate", "broadcast_every": 4}
    assert check_config(minimal(schedule=rounds | {"max_staleness": 7}), "test").schedule.max_staleness == 7
    text = problems_of(schedule=rounds | {"max_staleness": 8})
    assert "schedule.max_staleness = 8" in text
    assert "2 * broadcast_every - 1 = 7" in text


def test_transports_that_wait_for_the_engine_are_refused_where_it_may_sleep_through_a_round() -> None:
    rounds = {"mode": "alternate", "broadcast_every": 4, "max_staleness": 4}
    text = problems_of(schedule=rounds, weights={"transport": "nccl"})
    assert 'weights.transport = "nccl" with schedule.max_staleness = 4 in "alternate": expected 3' in text
    check_config(minimal(schedule=rounds | {"max_staleness": 3}, weights={"transport": "nccl"}), "test")


def test_the_strictest_asynchronous_schedule_is_allowed() -> None:
    config = check_config(minimal(schedule={"broadcast_every": 1, "max_staleness": 0}), "test")
    assert config.schedule.max_staleness == 0


@pytest.mark.parametrize(
    ("schedule", "staleness"),
    [
        ({"mode": "sync"}, 0),
        ({"mode": "alternate", "broadcast_every": 4}, 3),
        ({"mode": "async", "broadcast_every": 2}, 4),
    ],
)
def test_staleness_left_out_follows_from_the_mode(schedule: dict[str, object], staleness: int) -> None:
    assert check_config(minimal(schedule=schedule), "test").schedule.max_staleness == staleness


def test_a_lag_is_held_in_async_and_by_the_oldest_groups_first() -> None:
    held = {"hold_staleness": True, "max_staleness": 3}
    assert 'mode = "alternate"' in problems_of(schedule=held | {"mode": "alternate"})
    assert 'buffer.sampler = "lag_weighted": expected "fifo"' in problems_of(
        schedule=held, buffer={"sampler": "lag_weighted"}
    )
    assert check_config(minimal(schedule=held), "test").schedule.hold_staleness


def test_sync_with_another_interval_is_refused() -> None:
    assert 'mode "sync" expects' in problems_of(schedule={"mode": "sync", "broadcast_every": 2})


def test_a_batch_that_the_ranks_cannot_share_is_refused() -> None:
    assert "batch_groups" in problems_of(learner={"batch_groups": 10, "ranks": 4})


def test_completions_that_leave_no_room_for_a_prompt_are_refused() -> None:
    assert "actors.max_tokens = 64" in problems_of(actors={"max_tokens": 64}, model={"path": "tiny", "max_context": 64})


def test_weights_between_gpus_are_refused_where_they_could_not_travel() -> None:
    text = problems_of(weights={"transport": "nccl"}, actors={"engine": "scripted"}, learner={"ranks": 2})
    assert 'weights.transport = "nccl" with actors.engine = "scripted"' in text
    assert 'weights.transport = "nccl" with learner.ranks = 2' in text


def test_truncated_sampling_is_refused() -> None:
    assert "actors.top_p" in problems_of(actors={"top_p": 0.9})
    assert "actors.top_k" in problems_of(actors={"top_k": 50})


def test_a_program_must_have_less_time_than_its_reward_worker() -> None:
    text = problems_of(task={"name": "mbpp", "time_limit_s": 4.0})
    assert (
        "task.time_limit_s = 4, which allows 12 s of wall time: expected less than actors.reward_timeout_s = 10" in text
    )


def test_a_proof_must_have_less_time_than_its_reward_worker() -> None:
    task = {"name": "minif2f", "params": {"server": "http://127.0.0.1:8000"}}
    said = "{} = {}, the seconds that Lean has for a proof: expected less than actors.reward_timeout_s = {}"
    assert said.format("task.params.timeout_s", 60, 10) in problems_of(task=task)
    task["params"] = {"server": "http://127.0.0.1:8000", "timeout_s": 20}
    assert said.format("task.params.timeout_s", 20, 20) in problems_of(task=task, actors={"reward_timeout_s": 20})
    check_config({"model": {"path": "tiny"}, "task": task, "actors": {"reward_timeout_s": 21}}, "test")


def test_a_file_that_is_not_there_names_the_shipped_ones() -> None:
    with pytest.raises(UsageError, match=r"recipes/quickstart.toml"):
        load_recipe(Path("nothing.toml"), [])


def test_a_file_that_is_not_toml_says_where(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text("[model\n")
    with pytest.raises(UsageError, match="is not TOML"):
        load_recipe(path, [])
