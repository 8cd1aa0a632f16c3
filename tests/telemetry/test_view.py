from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from telemetry.config import TelemetryConfig
from telemetry.frame import plain_line
from telemetry.run_dir import RunDirectory
from telemetry.view import LiveView
from telemetry.view_state import RunInfo, ViewState
from tests.telemetry.fakes import make_record, make_run, make_status

INFO = RunInfo("trial", "async", "tiny", 100, 2)


def strip_colours(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def make_view(run_dir: RunDirectory, view: str, **config: object) -> tuple[LiveView, io.StringIO]:
    file = io.StringIO()
    console = Console(width=100, height=40, file=file, force_terminal=view == "live")
    settings = TelemetryConfig(view=view, **config)  # type: ignore[arg-type]
    live = LiveView(run_dir, 100, mode="async", model="tiny", max_staleness=2, config=settings, console=console)
    return live, file


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


def log_line(text: str, number: int = 1, count: int = 1, *, is_warning: bool = True) -> dict[str, object]:
    return {"number": number, "time_s": 1.7e9 + number, "text": text, "count": count, "is_warning": is_warning}


def test_plain_output_tells_what_the_hub_warns_of_when_its_count_has_doubled(run_dir: RunDirectory) -> None:
    view, file = make_view(run_dir, "plain")
    with view:
        for count in (1, 1, 2, 3, 4, 5):
            lines = [log_line(f"groups failed: {count}", count=count), log_line("actor-0 joined", 2, is_warning=False)]
            view.update([], make_status(log=lines))
    assert file.getvalue().splitlines() == ["groups failed: 1", "groups failed: 2", "groups failed: 4"]


def test_what_the_launcher_tells_the_hub_as_well_comes_once(run_dir: RunDirectory) -> None:
    view, file = make_view(run_dir, "plain")
    with view:
        view.note("actor-1 ended")
        view.update([], make_status(log=[log_line("actor-0 joined", is_warning=False), log_line("actor-1 ended", 2)]))
        assert [one.text for one in view.state.happenings] == ["actor-0 joined", "actor-1 ended"]
    assert file.getvalue().splitlines() == ["actor-1 ended"]


def test_a_stall_is_told_once_with_who_waits_for_what(run_dir: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("telemetry.view.time.monotonic", lambda: now[0])
    view, file = make_view(run_dir, "plain", stall_s=30.0)
    for moment in (0.0, 20.0, 31.0, 40.0):
        now[0] = moment
        view.update([], make_status())
    assert file.getvalue().splitlines() == ["nothing has moved for 31 s: actor-1 waits for a lease, 12 s"]
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
