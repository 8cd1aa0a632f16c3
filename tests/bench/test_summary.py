"""From results to rows, the printed table and the pictures; the search for learning rates."""

from __future__ import annotations

import dataclasses
import functools
import json
import re
from pathlib import Path
from typing import Any

import pytest

from bench.table import tune
from bench.table.arms import LAGS
from bench.table.asked import check_results
from bench.table.cell import Cell
from bench.table.curves import Interval
from bench.table.draw import draw_all
from bench.table.experiment import Experiment, Selection
from bench.table.summary import Table, summarise
from bench.table.text import interval, percent, render, render_table
from rapid.config import RunConfig
from rapid.errors import UsageError
from rapid.recipe import load_recipe

ROOT = Path(__file__).resolve().parents[2]


def result(
    arm: str, seed: int = 0, *, step_s: float = 10.0, accuracy: tuple[float, ...] = (0.1, 0.3, 0.5)
) -> dict[str, Any]:
    """A run with an evaluation every step of 100 completions."""
    curve = [
        {
            "step": step,
            "wall_s": step_s * step,
            "samples": 100 * step,
            "pass_at": {"1": {"mean": value}, "8": {"mean": min(1.0, 2 * value)}},
            "mean_reward": value,
        }
        for step, value in enumerate(accuracy, 1)
    ]
    return {
        "task": "sums",
        "arm": arm,
        "seed": seed,
        "overrides": {"schedule.steps": len(curve), "learner.snapshot_every": 1},
        "curve": curve,
        "notes": [],
        "is_diverged": False,
        "steps": len(curve),
        "wall_s": step_s * len(curve),
        "samples": 100 * len(curve),
        "samples_generated": 150 * len(curve),
        "lag_mean": 1.5,
        "lag_max": 3,
        "memory_bytes": {"total": 3 * 2**30},
        "time_s": {"generate": 6.0, "both": 0.0, "train": 3.0, "load": 0.0, "wait": 1.0},
    }


def diverge(run: dict[str, Any], *, steps: int) -> dict[str, Any]:
    """The same, ended by a loss that was not finite on its way to so many steps."""
    return {**run, "is_diverged": True, "overrides": {"schedule.steps": steps, "learner.snapshot_every": 1}}


def table(*results: dict[str, Any], arms: tuple[str, ...] = ("grpo", "rapid-4")) -> Table:
    (found,) = summarise(results, arms=arms, baseline="grpo", window=1)
    return found


def test_a_row_has_the_figures_of_the_papers_table() -> None:
    found = table(
        result("grpo", 0),
        result("grpo", 1, accuracy=(0.1, 0.3, 0.7)),
        result("rapid-4", 0, step_s=5.0, accuracy=(0.2, 0.6, 0.8)),
        result("rapid-4", 1, step_s=5.0, accuracy=(0.2, 0.6, 0.8)),
    )
    assert found.equal_accuracy == pytest.approx(0.6)
    baseline, rapid = found.rows
    assert rapid.seeds == (0, 1)
    # 0.5 and 0.7: mean 0.6, sample deviation 0.1414, over the root of 2.
    assert (baseline.accuracy[1].value, baseline.accuracy[1].error) == (pytest.approx(0.6), pytest.approx(0.1))
    assert rapid.accuracy[8].value == pytest.approx(1.0)
    # RAPID reaches 0.6 at its second evaluation, after 10 s; the baseline needs all of its 30.
    assert rapid.time_to_equal_s == pytest.approx(10.0)
    assert baseline.time_to_equal_s == pytest.approx(30.0)
    assert rapid.saving.estimate == pytest.approx(2 / 3)
    assert (rapid.time_of_samples_s.value, rapid.saving_of_samples) == (15.0, pytest.approx(0.5))
    assert rapid.peak_bytes is not None
    assert rapid.peak_bytes.value == 3 * 2**30
    assert rapid.shares == pytest.approx({"generate": 0.6, "both": 0, "train": 0.3, "load": 0, "wait": 0.1})
    assert rapid.generated.value == pytest.approx(1.5)


def test_equal_samples_are_those_that_every_run_has() -> None:
    found = table(result("grpo"), result("rapid-4", accuracy=(0.1, 0.3)))
    assert found.equal_samples == 200
    assert found.rows[0].time_of_samples_s.value == pytest.approx(20.0)


def test_a_seed_that_diverged_counts_as_nothing_from_then_on() -> None:
    diverged = diverge(result("rapid-4", 1, step_s=5.0, accuracy=(0.4,)), steps=3)
    found = table(result("grpo"), result("rapid-4", 0, step_s=5.0), diverged)
    assert found.equal_samples == 300
    # Curves 0.1, 0.3, 0.5 and 0.4, 0, 0.
    assert found.rows[1].accuracy[1].value == pytest.approx(0.25)
    assert found.curves["rapid-4"][1].times_s == (5.0, 10.0, 15.0)
    assert found.rows[1].time_to_equal_s is None


def test_a_seed_that_diverged_before_its_first_evaluation_counts_too_and_not_beyond_its_own_end() -> None:
    diverged = diverge(result("grpo", 1, step_s=5.0, accuracy=(0.4,)), steps=3)
    diverged["curve"][0] |= {"step": 0, "wall_s": 0.0, "samples": 0}
    longer = result("rapid-4", step_s=5.0, accuracy=(0.1, 0.2, 0.4, 0.6))
    found = table(result("grpo"), diverged, longer)
    assert found.curves["grpo"][1].steps == (0, 1, 2, 3)
    assert found.curves["grpo"][1].times_s == (0.0, 5.0, 10.0, 15.0)
    assert found.rows[0].samples.value == 300
    assert found.rows[0].accuracy[1].value == pytest.approx(0.25)


def test_an_arm_that_trains_longer_is_compared_at_the_samples_and_the_accuracy_of_the_baseline() -> None:
    found = table(result("grpo"), result("rapid-4", step_s=5.0, accuracy=(0.1, 0.2, 0.4, 0.6)))
    rapid = found.rows[1]
    assert (found.equal_samples, rapid.samples.value, rapid.time_of_samples_s.value) == (300, 400, 15.0)
    # 0.5 lies halfway between 0.4 after 15 s and 0.6 after 20 s.
    assert (found.equal_accuracy, rapid.time_to_equal_s) == (0.5, pytest.approx(17.5))


def test_without_a_baseline_there_is_no_saving() -> None:
    found = table(result("rapid-4"))
    assert found.equal_accuracy is None
    assert (found.rows[0].saving.estimate, found.rows[0].saving_of_samples) == (None, None)
    assert "A* = not known yet" in render_table(found)


def test_results_of_arms_that_are_not_asked_for_are_left_out() -> None:
    assert [row.arm for row in table(result("grpo"), result("pg"), result("rapid-4")).rows] == ["grpo", "rapid-4"]


def test_the_table_is_printed_with_every_column_in_line() -> None:
    slow = {**result("rapid-4", step_s=20.0, accuracy=(0.1, 0.2, 0.3)), "notes": ["life 2: resumed"]}
    text = render([table(result("grpo"), slow)], {"grpo": "the baseline", "rapid-4": "ours"})
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 4
    assert len({len(line) for line in lines}) == 1
    cells = [cell.strip() for cell in lines[3].strip("|").split("|")]
    assert cells == [
        *("rapid-4", "1", "0.300", "0.600", "300", "never", "never", "60 s", "-100 %", "3.0"),
        *("60 %", "0 %", "30 %", "0 %", "10 %", "1.5, ≤ 3", "1.50"),
    ]
    assert "- rapid-4, seed 0: life 2: resumed" in text
    assert "- `rapid-4`: ours" in text


def test_savings_are_printed_with_their_interval() -> None:
    assert interval(Interval(0.34, 0.2, 0.41, 1.0)) == "34 % [20 %, 41 %]"
    assert interval(Interval(0.34, -float("inf"), 0.41, 0.9)) == "34 % [never, 41 %]"
    assert percent(None) == "–"


def test_the_staleness_series_is_a_table_of_its_own() -> None:
    arms = ("grpo", "stale-rapid-0", "stale-rapid-8", "stale-ppo-0")
    found = table(result("grpo"), *(result(arm) for arm in arms[1:]), arms=arms)
    lines = [line for line in render_table(found).splitlines() if line.startswith(("| loss", "| rapid", "| ppo"))]
    assert len(lines) == 3
    head, rapid, ppo = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    assert head == ["loss", *(f"L = {lag}" for lag in LAGS)]
    assert rapid == ["rapid", "0.500 (1.5)", "–", "–", "–", "0.500 (1.5)", "–", "–"]
    assert ppo[1] == "0.500 (1.5)"


def test_pictures_are_drawn_of_what_there_is(tmp_path: Path) -> None:
    arms = ("grpo", "rapid-4", "stale-rapid-0", "stale-rapid-8")
    found = table(result("grpo"), result("grpo", 1), *(result(arm) for arm in arms[1:]), arms=arms)
    paths = draw_all([found], tmp_path, window=2)
    names = ["sums-time.png", "sums-samples.png", "sums-split.png", "sums-staleness.png"]
    assert [path.name for path in paths] == names
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)


def test_results_of_another_plan_or_recipe_of_the_same_name_are_refused(tmp_path: Path) -> None:
    path, recipe = tmp_path / "p.toml", tmp_path / "recipe.toml"
    recipe.write_text((ROOT / "recipes" / "tiny.toml").read_text())
    text = f'arms = ["grpo"]\n[budget]\nsamples = 1280\n[tasks.digits]\nrecipe = "{recipe}"\n'
    path.write_text(text)
    read = functools.partial(Experiment.read, path, tmp_path / "r", tmp_path / "w", Selection())
    for cell in read().cells:
        keep(cell, result("grpo", cell.seed))
    check_results(read().cells)
    others = {
        "1280": ("640", r"schedule\.steps = 20, now 10"),
        "samples = 1280": ("wall_s = 60", r"schedule\.steps = 20, now 1000000"),
        "[tasks": ("[evaluation]\nk = [1, 4]\n[tasks", r"evaluation\.k = \[1, 8\], now \[1, 4\]"),
        "[tasks.": ('[set]\n"run.lend_cores" = false\n[tasks.', r"run\.lend_cores = None, now False"),
    }
    for before, (after, message) in others.items():
        path.write_text(text.replace(before, after))
        with pytest.raises(UsageError, match=f"{message}: give the plan another name"):
            check_results(read().cells)
        # A report does without them, and says so.
        assert re.search(f"left out: 0.json of grpo on digits, which was run with {message}", read().report())
    path.write_text(text)
    lines = recipe.read_text()
    for before, after, message in (
        (r"max_tokens = \d+", "max_tokens = 7", r"actors\.max_tokens = \d+, now 7"),
        (r'path = "tiny"', 'path = "tiny-untied"', "model.path = 'tiny', now 'tiny-untied'"),
    ):
        assert re.search(before, lines)
        recipe.write_text(re.sub(before, after, lines))
        with pytest.raises(UsageError, match=f"{message}: give the plan another name"):
            check_results(read().cells)


def keep(cell: Cell, run: dict[str, Any]) -> None:
    """Write down a result of this run, as one of another machine and an older version would be."""
    config = load_recipe(Path(cell.recipe), cell.sets()[1::2]).model_dump(mode="json")
    config["learner"]["of_an_older_version"] = 1
    overrides = {**cell.overrides, "run.directory": "elsewhere"}
    cell.result_path.parent.mkdir(parents=True, exist_ok=True)
    cell.result_path.write_text(json.dumps({**run, "overrides": overrides, "config": config}))


def test_a_result_that_is_damaged_is_named(tmp_path: Path) -> None:
    read = functools.partial(Experiment.read, ROOT / "bench/plans/try.toml", tmp_path, tmp_path, Selection())
    path = read().cells[0].result_path
    path.parent.mkdir(parents=True)
    path.write_text('{"curve": [')
    with pytest.raises(UsageError, match=r"0\.json is damaged: .* delete it, and the run is repeated"):
        read().report()


def test_many_arms_are_drawn_in_several_pictures_with_the_baseline_in_each(tmp_path: Path) -> None:
    arms = ("grpo", *(f"arm-{number}" for number in range(14)))
    found = table(*(result(arm) for arm in arms), arms=arms)
    names = [path.name for path in draw_all([found], tmp_path, window=1)]
    assert names == ["sums-time.png", "sums-samples.png", "sums-time-2.png", "sums-samples-2.png", "sums-split.png"]


# --- learning rates ------------------------------------------------------------------------------------


def test_the_learning_rate_that_ends_highest_is_chosen_and_the_lower_at_a_tie() -> None:
    trials = [
        result("grpo@1e-05", accuracy=(0.1, 0.4)),
        result("grpo@3e-05", accuracy=(0.9, 0.3)),
        result("pg@1e-05", accuracy=(0.1, 0.4)),
        result("pg@3e-05", accuracy=(0.2, 0.4)),
    ]
    assert tune.choose(trials, window=1) == {"grpo": 1e-05, "pg": 1e-05}
    # The mean of both evaluations turns the choice for grpo.
    assert tune.choose(trials, window=2)["grpo"] == 3e-05


def test_ablations_and_lags_share_a_learning_rate() -> None:
    arms = ["grpo", "rapid-4", "rapid-4-plain", "rapid-4-clip-5", "stale-ppo-0", "stale-ppo-32", "rapid-async-token"]
    assert tune.families(arms) == ["grpo", "rapid-4", "stale-ppo-1", "rapid-async"]


def test_the_rate_of_a_family_is_that_of_its_members() -> None:
    assert tune.rate_for("stale-ppo-8", {"stale-ppo-1": 2e-5}) == 2e-5
    assert tune.rate_for("pg", {"grpo": 1e-5}) is None


def write_plan(folder: Path, of_search: str = "") -> Path:
    """Two arms and a search for their learning rates."""
    path = folder / "p.toml"
    path.write_text(
        'arms = ["grpo", "rapid-4"]\n[budget]\nsamples = 1280\n[learning_rates]\nvalues = [1e-4, 2e-4]\n'
        f'task = "digits"\n{of_search}[tasks.digits]\nrecipe = "recipes/tiny.toml"\n'
    )
    return path


def test_a_plan_takes_the_learning_rates_that_the_search_found(tmp_path: Path) -> None:
    path = write_plan(tmp_path)
    trials = Experiment.read(path, tmp_path / "r", tmp_path / "w", Selection(), is_tuning=True).cells
    assert [(cell.arm, cell.seed, cell.overrides["learner.lr"]) for cell in trials] == [
        ("grpo@0.0001", 1000, 1e-4),
        ("grpo@0.0002", 1000, 2e-4),
        ("rapid-4@0.0001", 1000, 1e-4),
        ("rapid-4@0.0002", 1000, 2e-4),
    ]
    unsearched = Experiment.read(path, tmp_path / "r", tmp_path / "w", Selection())
    assert unsearched.report() == "no run of p has ended yet"
    with pytest.raises(UsageError, match=r"arm grpo: .* is not there; run with --tune first"):
        unsearched.run(None, lambda: False)
    for cell, last in zip(trials[:3], (0.2, 0.3, 0.5), strict=True):
        keep(cell, result(cell.arm, accuracy=(last,)))
    read = functools.partial(Experiment.read, path, tmp_path / "r", tmp_path / "w", Selection(seeds=[0]))
    assert read().report() == "no run of p has ended yet"  # trials are no results
    with pytest.raises(UsageError, match=r"arm rapid-4: .*rapid-4@0\.0002/1000\.json .* is not there"):
        read().run(None, lambda: False)
    keep(trials[3], result(trials[3].arm, accuracy=(0.4,)))
    assert rates(read()) == {"grpo": 2e-4, "rapid-4": 1e-4}
    # A trial that diverged ends with nothing, and one of another search does not count.
    keep(trials[1], diverge(result(trials[1].arm, accuracy=(0.6,)), steps=20))
    stranger = dataclasses.replace(trials[0], arm="grpo@0.005", overrides={**trials[0].overrides, "learner.lr": 5e-3})
    keep(stranger, result(stranger.arm, accuracy=(0.9,)))
    assert rates(read()) == {"grpo": 1e-4, "rapid-4": 1e-4}
    path.write_text(path.read_text().replace('task = "digits"', 'task = "digits"\nseed = 7'))
    with pytest.raises(UsageError, match=r"7\.json of the search for its learning rate is not there"):
        read().run(None, lambda: False)


def rates(experiment: Experiment) -> dict[str, float]:
    """Learning rates of the runs, by arm."""
    return {cell.arm: cell.overrides["learner.lr"] for cell in experiment.cells}


def test_a_search_for_the_baseline_decides_for_all_arms(tmp_path: Path) -> None:
    path = write_plan(tmp_path, "of_baseline = true\n")
    trials = Experiment.read(path, tmp_path / "r", tmp_path / "w", Selection(), is_tuning=True).cells
    assert [cell.arm for cell in trials] == ["grpo@0.0001", "grpo@0.0002"]
    assert RunConfig(name=trials[0].name).name == "digits.grpo-at-0.0001.1000"
    for cell, last in zip(trials, (0.2, 0.3), strict=True):
        keep(cell, result(cell.arm, accuracy=(last,)))
    found = Experiment.read(path, tmp_path / "r", tmp_path / "w", Selection(seeds=[0]))
    assert rates(found) == {"grpo": 2e-4, "rapid-4": 2e-4}
