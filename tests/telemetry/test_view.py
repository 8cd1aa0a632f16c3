from __future__ import annotations

import io
import re

import pytest
from rich.cells import cell_len
from rich.console import Console

from telemetry.config import TelemetryConfig
from telemetry.frame import plain_line, render
from telemetry.run_dir import RunDirectory
from telemetry.view import LiveView
from telemetry.view_state import RunInfo, ViewState
from tests.telemetry.fakes import make_record, make_run, make_status

INFO = RunInfo("trial", "async", "tiny", 100, 2)


def draw(state: ViewState, width: int = 80, height: int = 40) -> str:
    console = Console(width=width, height=height, file=io.StringIO(), force_terminal=True, color_system=None)
    console.print(render(state))
    return strip_colours(console.file.getvalue())  # type: ignore[attr-defined]


def strip_colours(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def make_view(run_dir: RunDirectory, view: str, **config: object) -> tuple[LiveView, io.StringIO]:
    file = io.StringIO()
    console = Console(width=100, height=40, file=file, force_terminal=view == "live")
    settings = TelemetryConfig(view=view, **config)  # type: ignore[arg-type]
    live = LiveView(run_dir, 100, mode="async", model="tiny", max_staleness=2, config=settings, console=console)
    return live, file


@pytest.mark.parametrize("width", [60, 80, 100, 108, 120, 200])
@pytest.mark.parametrize("num_steps", [0, 1, 47, 100])
def test_a_frame_fills_its_width_exactly_and_cuts_no_word_of_its_figures(width: int, num_steps: int) -> None:
    events = [("03:18:22", "actor-1 died " * 20)]
    lines = draw(ViewState(INFO, make_run(num_steps), make_status(), events), width).splitlines()
    assert {cell_len(line) for line in lines} == {width}


def test_a_frame_says_what_a_user_asks() -> None:
    records = [make_record(step, reward_mean=0.5 if step > 42 else 0.1) for step in range(1, 48)]
    text = draw(ViewState(INFO, records, make_status(), [("03:18:22", "actor-1 died")], run_s=192.0))
    for wanted in (
        "trial",
        "async · tiny",
        "47/100",
        "3:12 · 3:32 left",
        "0.50  from 0.10 · best 0.50",
        "mean 0.75 · max 2 · run max 2 of 2 allowed",
        "actors 312  learner 600",
        "waits 13 %  ■ trains 84 %  ■ publishes 3 %",
        "settled 1,104",
        "of 1,284",
        "● v47   trains",
        "312 tokens/s · 12 groups",
        "○ v46   waits for a lease",
        "03:18:22   actor-1 died",
    ):
        assert wanted in text


def test_the_frame_of_a_start_says_what_goes_on() -> None:
    text = draw(ViewState(INFO, phase="actor-0 loads the model"))
    assert "actor-0 loads the model" in text
    assert "none yet" in text


@pytest.mark.parametrize(("width", "height"), [(80, 24), (80, 30), (120, 24), (120, 40)])
def test_a_frame_is_no_higher_than_the_terminal(width: int, height: int) -> None:
    state = ViewState(INFO, make_run(47), make_status(), [("03:18:22", "one"), ("03:18:23", "two")])
    assert len(draw(state, width, height).splitlines()) <= height


def test_many_actors_are_cut_short_and_the_rest_counted() -> None:
    actor = make_status()["clients"][1]
    clients = [{**actor, "name": f"actor-{i}"} for i in range(12)]
    text = draw(ViewState(INFO, make_run(3), make_status(clients=clients)))
    assert "actor-5" in text
    assert "actor-6" not in text
    assert "and 6 more, 6 of them waiting" in text


def test_a_silent_actor_is_marked() -> None:
    clients = [{**make_status()["clients"][0], "seen_s": 40.0}]
    assert "✗ v47   silent for 40 s" in draw(ViewState(INFO, make_run(3), make_status(clients=clients)))


def test_time_left_is_judged_by_the_steps_after_the_first() -> None:
    # The first step took 60 s with the start of the engines, the two after it 4 s each: 97 are left, 1 s of them gone.
    records = [make_record(step, wall_s=wall) for step, wall in ((1, 60.0), (2, 64.0), (3, 68.0))]
    assert ViewState(INFO, records, since_step_s=1.0).left_s() == pytest.approx(97 * 4.0 - 1.0)
    assert ViewState(INFO, records[:1]).left_s() is None


def test_the_rates_that_actors_report_are_added_up() -> None:
    actor = make_status()["clients"][0]
    status = make_status(clients=[{**actor, "name": "actor-0"}, {**actor, "name": "actor-1"}])
    assert ViewState(INFO, [make_record(1)], status).generated_tokens_per_s() == 624.0
    assert ViewState(INFO, [make_record(1)]).generated_tokens_per_s() == 500.0


def test_learner_time_is_shared_out() -> None:
    # 0.5 + 3.2 + 0.1 = 3.8 s a step
    shares = ViewState(INFO, [make_record(1), make_record(2)]).time_shares()
    assert shares == pytest.approx({"wait": 0.5 / 3.8, "train": 3.2 / 3.8, "publish": 0.1 / 3.8})


def test_a_plain_line_holds_the_step() -> None:
    line = plain_line(ViewState(INFO, [make_record(1), make_record(2)]))
    assert line.startswith("step   2/100  reward 0.25 ")
    assert "lag 0.75, max 2/2" in line
    assert "wait 0.5 s  train 3.2 s  left 6:32" in line


def test_plain_output_has_one_line_a_step_whatever_comes_between(run_dir: RunDirectory) -> None:
    view, file = make_view(run_dir, "plain")
    records = make_run(5)
    with view:
        view.set_phase("starting Ray")
        view.set_phase("starting Ray")
        view.update([], None)
        view.update(records[:1], make_status())
        view.update(records[:1], make_status())
        view.note("actor-1 died")
        view.update(records, None)
    heads = [line[:12] for line in file.getvalue().splitlines()]
    later = [f"step   {step}/100" for step in (2, 3, 4, 5)]
    assert heads == ["starting Ray", "step   1/100", "actor-1 died", *later]


def test_steps_done_again_after_a_resume_are_told_again(run_dir: RunDirectory) -> None:
    view, file = make_view(run_dir, "plain")
    with view:
        view.update([make_record(1), make_record(2)], None)
        view.update([make_record(1), make_record(2, incarnation=2)], None)
    assert [line[:12] for line in file.getvalue().splitlines()] == ["step   1/100", "step   2/100", "step   2/100"]


def test_a_stall_is_told_once_with_who_waits_for_what(run_dir: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("telemetry.view.time.monotonic", lambda: now[0])
    view, file = make_view(run_dir, "plain", stall_s=30.0)
    for moment in (0.0, 20.0, 31.0, 40.0):
        now[0] = moment
        view.update([], make_status())
    assert file.getvalue().splitlines() == ["nothing has moved for 31 s: actor-1 waits for a lease"]
    now[0] = 41.0
    view.update([make_record(1)], make_status())
    assert not view.state.is_stalled


def test_the_live_view_draws_and_leaves_its_last_frame(run_dir: RunDirectory) -> None:
    view, file = make_view(run_dir, "live", view_refresh_s=0.05)
    with view:
        view.update(make_run(3), make_status())
    assert "3/100" in strip_colours(file.getvalue()).rsplit("╭", 1)[1]


def test_auto_is_plain_without_a_terminal_and_none_prints_nothing(run_dir: RunDirectory) -> None:
    view, file = make_view(run_dir, "auto")
    with view:
        view.note("seen")
    assert file.getvalue() == "seen\n"
    view, file = make_view(run_dir, "none")
    with view:
        view.note("seen")
        view.update(make_run(3), make_status())
    assert file.getvalue() == ""
