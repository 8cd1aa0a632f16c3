"""Plans: what is read, what is refused before anything starts, and the runs that come of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.table.arms import ARMS, LAGS, SETS, STALE_LOSSES, stale_name
from bench.table.cell import Places, to_toml
from bench.table.experiment import Experiment, Selection, _cells, _trials
from bench.table.plan import Plan, check_fairness, make_cell, read_plan
from rapid.config import RapidConfig
from rapid.errors import ConfigError, UsageError
from rapid.recipe import load_recipe
from tasks.config import EvalConfig

ROOT = Path(__file__).resolve().parents[2]
PLACES = Places(Path("results"), Path("work"))


def plan(**values: Any) -> Plan:
    described: dict[str, Any] = {
        "name": "p",
        "arms": ["grpo", "rapid-4"],
        "budget": {"samples": 1280},
        "tasks": {"digits": {"recipe": "recipes/tiny.toml"}},
    }
    return Plan.model_validate({**described, **values})


def resolve(cell: Any) -> RapidConfig:
    return load_recipe(Path(cell.recipe), [f"{key}={to_toml(value)}" for key, value in cell.overrides.items()])


@pytest.mark.parametrize("path", sorted((ROOT / "bench" / "plans").glob("*.toml")), ids=lambda path: path.stem)
def test_every_run_of_a_shipped_plan_has_a_valid_configuration(path: Path, tmp_path: Path) -> None:
    described = read_plan(path)
    for task in described.tasks:
        cells = [make_cell(described, PLACES, task, arm, 0, root=ROOT) for arm in described.arm_names]
        check_fairness(cells)
        assert len({cell.name for cell in cells}) == len(described.arm_names)


@pytest.mark.parametrize("name", sorted(ARMS))
def test_every_arm_is_a_valid_configuration(name: str) -> None:
    config = resolve(make_cell(plan(arms=["grpo", name]), PLACES, "digits", name, 3, root=ROOT))
    # 1280 completions in batches of 8 groups of 8.
    assert (config.schedule.steps, config.run.seed) == (20, 3)


def test_an_arm_may_train_on_more_than_the_others() -> None:
    described = plan(arms=["grpo", "long"], custom={"long": {"base": "rapid-async", "samples": 1920}})
    steps = {
        arm: resolve(make_cell(described, PLACES, "digits", arm, 0, root=ROOT)).schedule.steps for arm in described.arms
    }
    assert steps == {"grpo": 20, "long": 30}
    uneven = plan(arms=["grpo", "long"], custom={"long": {"base": "rapid-async", "samples": 1000}})
    with pytest.raises(UsageError, match="samples = 1000, expected a multiple of the 64"):
        make_cell(uneven, PLACES, "digits", "long", 0, root=ROOT)


def test_runs_are_measured_on_prompts_that_the_search_for_rates_does_not_see(tmp_path: Path) -> None:
    described = plan(evaluation={"seed": 5}, learning_rates={"values": [1e-4, 1e-3], "task": "digits"})
    runs, trials = (make(described, Places(tmp_path, tmp_path), Selection()) for make in (_cells, _trials))
    assert {resolve(cell).task.eval.seed for cell in runs} == {5}
    assert {resolve(cell).task.eval.seed for cell in trials} == {EvalConfig().seed}


def test_the_staleness_series_holds_each_lag_and_changes_nothing_else() -> None:
    cells = {name: make_cell(plan(), PLACES, "digits", name, 0, root=ROOT) for name in SETS["staleness"]}
    for loss in STALE_LOSSES:
        configs = [resolve(cells[stale_name(loss, lag)]) for lag in LAGS]
        assert [config.schedule.max_staleness for config in configs] == list(LAGS)
        assert all(config.schedule.hold_staleness for config in configs)
        assert len({config.algorithm for config in configs}) == 1


def test_ablations_differ_from_their_base_in_one_switch() -> None:
    for name in SETS["ablations"]:
        base, overrides = ARMS["rapid-async" if "async" in name else "rapid-4"].overrides, ARMS[name].overrides
        changed = {key for key in base.keys() | overrides.keys() if base.get(key) != overrides.get(key)}
        assert len(changed - {"algorithm.loss"}) == 1, name


def test_an_arm_that_trains_on_other_batches_is_refused() -> None:
    cheat = plan(arms=["grpo", "big"], custom={"big": {"base": "grpo", "set": {"learner.batch_groups": 16}}})
    cells = [make_cell(cheat, PLACES, "digits", arm, 0, root=ROOT) for arm in cheat.arm_names]
    with pytest.raises(UsageError, match=r"learner\.batch_groups is 16 in arm big and 8 in arm grpo"):
        check_fairness(cells)


def test_an_arm_that_has_the_time_for_itself_is_refused_with_the_whole_plan(tmp_path: Path) -> None:
    path = tmp_path / "p.toml"
    for field, value in (("learner.batch_groups", 16), ("actors.concurrent_groups", 64), ("run.lend_cores", "false")):
        path.write_text(
            'arms = ["grpo", "big"]\n[budget]\nsamples = 1280\n[tasks.digits]\nrecipe = "recipes/tiny.toml"\n'
            f'[custom.big]\nbase = "grpo"\nset = {{"{field}" = {value}}}\n'
        )
        # Its runs would be in the same table, even if they are asked for one by one.
        with pytest.raises(UsageError, match=f"{field} is .* in arm big"):
            Experiment.read(path, tmp_path, tmp_path, Selection(arms=["big"]))


def test_what_a_task_sets_goes_before_what_the_plan_sets() -> None:
    own = plan(
        set={"actors.max_tokens": 5, "learner.lr": 1e-3},
        tasks={"digits": {"recipe": "recipes/tiny.toml", "set": {"actors.max_tokens": 7}}},
    )
    found = resolve(make_cell(own, PLACES, "digits", "grpo", 0, root=ROOT))
    assert (found.actors.max_tokens, found.learner.lr) == (7, 1e-3)


def test_what_a_recipe_says_of_schedule_and_estimator_does_not_count(tmp_path: Path) -> None:
    recipe = tmp_path / "own.toml"
    before, said = (
        '[schedule]\nmode = "async"\nsteps = 40\n',
        '[schedule]\nmode = "async"\nmax_staleness = 5\nsteps = 3\n',
    )
    said += '[algorithm]\nweight_level = "token"\nweight_clip = "none"\n'
    text = (ROOT / "recipes" / "tiny.toml").read_text()
    assert before in text
    recipe.write_text(text.replace(before, said))
    # Neither says a bound: it follows from mode and H.
    custom = {
        "late": {"set": {"schedule.broadcast_every": 3}},
        "turns": {"set": {"schedule.mode": "alternate", "schedule.broadcast_every": 3}},
    }
    own, usual = plan(tasks={"digits": {"recipe": str(recipe)}}, custom=custom), plan(custom=custom)
    for arm, bound in (("grpo", 0), ("rapid-4", 3), ("late", 6), ("turns", 2)):
        theirs = resolve(make_cell(own, PLACES, "digits", arm, 0))
        ours = resolve(make_cell(usual, PLACES, "digits", arm, 0, root=ROOT))
        assert theirs.schedule.max_staleness == bound
        assert (theirs.schedule, theirs.algorithm) == (ours.schedule, ours.algorithm)


def test_an_arm_may_have_a_learning_rate_of_its_own() -> None:
    tuned = plan(arms=["grpo", "slow"], custom={"slow": {"base": "grpo", "set": {"learner.lr": 1e-4}}})
    cells = [make_cell(tuned, PLACES, "digits", arm, 0, root=ROOT) for arm in tuned.arm_names]
    check_fairness(cells)
    usual, own = (resolve(cell).learner.lr for cell in cells)
    assert usual != own == 1e-4


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"arms": ["grpo", "rapd-4"]}, "did you mean rapid-4"),
        ({"baseline": "pg"}, "not among the arms"),
        ({"budget": {}}, "exactly one of them"),
        ({"budget": {"samples": 64, "wall_s": 60}}, "exactly one of them"),
        ({"evaluation": {"k": [8]}}, "ascending numbers from 1"),
        ({"custom": {"pg": {}}}, "there is an arm of that name"),
        ({"learning_rates": {"values": [1e-5, 1e-4], "task": "digit"}}, "did you mean digits"),
        ({"seed": [1]}, "Extra inputs"),
        ({"seeds": [0, 1, 0]}, "expected each once"),
        ({"tasks": {"a/b": {"recipe": "recipes/tiny.toml"}}}, "should match pattern"),
        ({"custom": {"my arm": {}}}, "should match pattern"),
    ],
)
def test_a_plan_that_cannot_work_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan(**values)


def test_samples_that_fill_no_whole_step_are_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="multiple of the 64 completions of an optimizer step: take 1216"):
        make_cell(plan(budget={"samples": 1279}), PLACES, "digits", "grpo", 0, root=ROOT)


def test_a_task_may_have_a_budget_and_evaluations_of_its_own() -> None:
    short = plan(tasks={"digits": {"recipe": "recipes/tiny.toml", "budget": {"samples": 640}, "every_steps": 2}})
    usual, own = (resolve(make_cell(each, PLACES, "digits", "grpo", 0, root=ROOT)) for each in (plan(), short))
    assert usual.schedule.steps == 2 * own.schedule.steps == 20
    assert (usual.learner.snapshot_every, own.learner.snapshot_every) == (5, 2)


def test_a_budget_of_time_wants_a_learning_rate_that_does_not_fall() -> None:
    falling = plan(budget={"wall_s": 60}, set={"learner.lr_decay": "linear"})
    with pytest.raises(UsageError, match=r'expected "none"; or take budget\.samples'):
        make_cell(falling, PLACES, "digits", "grpo", 0, root=ROOT)


def test_an_override_that_the_recipe_does_not_know_names_recipe_task_and_arm() -> None:
    with pytest.raises(ConfigError, match=r"recipes/tiny\.toml for digits, arm grpo"):
        make_cell(plan(set={"learner.lrr": 1}), PLACES, "digits", "grpo", 0, root=ROOT)


def test_a_plan_that_is_not_there_or_not_toml_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_plan(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("arms = [")
    with pytest.raises(UsageError, match="is not TOML"):
        read_plan(tmp_path / "bad.toml")


def test_a_selection_takes_part_of_a_plan_and_refuses_what_is_not_in_it(tmp_path: Path) -> None:
    path = ROOT / "bench" / "plans" / "try.toml"
    some = Experiment.read(path, tmp_path, tmp_path, Selection(arms=["rapid-4"], seeds=[1]))
    assert [(cell.arm, cell.seed) for cell in some.cells] == [("rapid-4", 1)]
    with pytest.raises(UsageError, match="--seeds 7: the plan has none of that name"):
        Experiment.read(path, tmp_path, tmp_path, Selection(seeds=[7]))


@pytest.mark.parametrize(
    ("value", "text"),
    [(True, "true"), (3, "3"), (1e-05, "1e-05"), ("none", '"none"'), ([1, 8], "[1, 8]"), ({"a": 1}, '{"a" = 1}')],
)
def test_overrides_are_written_as_toml(value: Any, text: str) -> None:
    assert to_toml(value) == text
