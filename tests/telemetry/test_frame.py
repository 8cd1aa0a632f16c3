"""Frames of the terminal view, at the sizes of real terminals, and in states that no run should be in."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from telemetry.catalogue import ACTOR_BUSY, ACTOR_TOKEN_RATE
from telemetry.controls import Controls
from telemetry.document import document
from telemetry.frame import draw
from telemetry.parts import SORTS, sort_actors
from telemetry.view_state import Happening, RunInfo, ViewState
from telemetry.widgets import lag_rows
from tests.telemetry.fakes import make_record, make_run, make_status

INFO = RunInfo("trial", "async", "tiny", 100, 2)
FLEET = {
    "wanted": 3,
    "running": 2,
    "pending": 1,
    "leaving": 0,
    "scaling": "fixed",
    "advised": 2,
    "advice": "2 would balance the learner",
    "waiting_for": "",
}
HAPPENINGS = [Happening(1.7e9 + i, f"thing {i}") for i in range(4)]


def lines_of(state: ViewState, width: int = 80, height: int | None = 40, controls: Controls | None = None) -> list[str]:
    return [line.plain for line in draw(state, width, height, controls).lines]


def text_of(state: ViewState, width: int = 80, height: int | None = 40, controls: Controls | None = None) -> str:
    return "\n".join(lines_of(state, width, height, controls))


def make_actor(number: int, **changes: Any) -> dict[str, Any]:
    rate = {ACTOR_TOKEN_RATE.name: 100.0 + number, ACTOR_BUSY.name: 0.9}
    return {**make_status()["clients"][0], "name": f"actor-{number}", "metrics": rate, **changes}


def make_actors(count: int) -> dict[str, Any]:
    return make_status(clients=[make_status()["clients"][2], *(make_actor(number) for number in range(count))])


def rows_of(state: ViewState, controls: Controls, height: int = 24) -> list[str]:
    """Names of the actors that a frame shows, in its order."""
    lines = lines_of(state, 80, height, controls)
    return [line.split()[1] for line in lines if line.startswith("│ actor-")]


@pytest.mark.parametrize("width", [60, 80, 100, 116, 120, 200])
@pytest.mark.parametrize("num_steps", [0, 1, 47, 100])
@pytest.mark.parametrize("height", [24, 50, None])
def test_a_frame_fills_its_width_exactly_and_fits_its_height(width: int, num_steps: int, height: int | None) -> None:
    state = ViewState(INFO, make_run(num_steps), make_status(), [*HAPPENINGS, Happening(1.7e9, "actor died " * 30)])
    lines = lines_of(state, width, height, Controls())
    assert {cell_len(line) for line in lines} == {width}
    assert height is None or len(lines) <= height


@pytest.mark.parametrize("width", [80, 120])
def test_a_frame_of_24_lines_has_all_that_a_user_asks(width: int) -> None:
    records = [make_record(step, reward_mean=0.5 if step > 42 else 0.1) for step in range(1, 48)]
    state = ViewState(INFO, records, make_status(fleet=FLEET), HAPPENINGS, run_s=192.0)
    text = text_of(state, width, 24, Controls())
    for wanted in (
        "rapid · trial · async · tiny",
        "47/100",
        "3:12 · 3:32 left",
        "0.50  from 0.10 · best 0.50",
        "trained",
        "buffered",
        "mean 0.75 · max 2 · run max 2 of 2 allowed",
        "actors 312 ██",
        "learner 600 ██",
        "waits 13 %  ■ trains 84 %  ■ publishes 3 %",
        "settled 1,104",
        "= 1,284",
        "actor-1 waits for a lease, 12 s",
        "advice     2 would balance the learner",
        "● serves 2/3 actors",
        "● trains",
        "● generates",
        "○ waits for a lease",
        "thing 3",
        "q quit",
    ):
        assert wanted in text


def test_parts_tell_version_lag_leases_rate_and_since_when() -> None:
    lines = lines_of(ViewState(INFO, make_run(47), make_status()), 120, 40)
    cells = {line.split()[1]: line.split()[2:-1] for line in lines if line.startswith("│ ") and "v4" in line}
    assert cells["hub"] == ["●", "serves", "2", "actors", "3:12", "v47", "24"]
    assert cells["learner"][:5] == ["●", "trains", "3", "s", "v47"]
    assert cells["actor-0"] == ["●", "generates", "30", "s", "v47", "0", "12", "312", "box"]
    assert cells["actor-1"] == ["○", "waits", "for", "a", "lease", "12", "s", "v46", "1", "0", "box"]


def test_lag_of_weights_is_counted_through_the_branch_point() -> None:
    # Incarnation 2 began at step 40 of the first: from (1, 45) back to 40 and forward to 47 are 5 + 7 steps.
    actor = make_actor(0, version={"incarnation": 1, "step": 45})
    status = make_status(
        clients=[actor], version={"incarnation": 2, "step": 47}, lineage={"branch_steps": [40]}, published=None
    )
    assert [part.behind for part in ViewState(INFO, status=status).actors] == [12]


def test_the_lag_histogram_shares_out_tokens_and_groups() -> None:
    by_lag = {"0": {"tokens": 750}, "2": {"tokens": 250}}
    records = [make_record(1, diagnostics={"by_lag": by_lag}), make_record(2, diagnostics={"by_lag": by_lag})]
    lines = lines_of(ViewState(INFO, records, make_status(lags={"0": 8, "1": 6})), 80, 24)
    top = next(number for number, line in enumerate(lines) if "trained" in line and "buffered" in line)
    assert [line[48:].split()[:1] for line in lines[top + 1 : top + 4]] == [["0"], ["1"], ["2"]]
    assert "75 %" in lines[top + 1]
    assert lines[top + 1].rstrip("│ ").endswith("8")
    assert "%" not in lines[top + 2]
    assert lines[top + 2].rstrip("│ ").endswith("6")
    assert "25 %" in lines[top + 3]


def test_a_large_bound_puts_several_lags_into_one_row() -> None:
    state = ViewState(RunInfo("trial", "async", "tiny", 100, 16), make_run(10), make_status())
    assert [row.plain.split()[0] for row in lag_rows(state, 31, 3)] == ["0–5", "6–11", "12–16"]


def test_a_ledger_that_does_not_add_up_says_so() -> None:
    assert "= 1,284 ≠ 1,286 opened" in text_of(ViewState(INFO, make_run(3), make_status(opened=1286)))
    assert "= 1,284 opened" in text_of(ViewState(INFO, make_run(3), make_status()))


def test_a_broken_bound_a_stall_and_a_silent_hub_are_seen() -> None:
    late = ViewState(INFO, [make_record(1, lag_max=3)], make_status(), idle_s=130.0)
    assert "run max 3 of 2 allowed" in text_of(late)
    assert "STALLED    nothing has moved for 2:10: actor-1 waits for a lease, 12 s" in text_of(late)
    silent = ViewState(INFO, make_run(3), make_status(), silent_s=42.0)
    assert "no answer for 42 s" in lines_of(silent)[0]
    assert "✗ silent" in text_of(silent)


def test_a_run_that_is_over_shows_its_last_state_without_parts() -> None:
    status = {"ledger": {"settled": 12}, "opened": 12, "events": {}}
    text = text_of(ViewState(INFO, make_run(47), status, is_over=True, idle_s=1e6), 80, None)
    assert "over ─╮" in text
    assert "settled 12" in text
    assert "part" not in text
    assert "STALLED" not in text


def test_actors_that_are_wanted_and_not_there_are_counted_and_what_they_wait_for_is_told() -> None:
    fleet = {**FLEET, "wanted": 5, "waiting_for": "actor-2 waits for a place with {'CPU': 2.5} for 30 s"}
    text = text_of(ViewState(INFO, make_run(3), make_status(fleet=fleet)))
    assert "serves 2/5 actors" in text
    assert "waits      actor-2 waits for a place with {'CPU': 2.5} for 30 s" in text


@pytest.mark.parametrize("width", [80, 116])
def test_an_advice_is_whole_and_does_not_say_its_name_twice(width: int) -> None:
    advice = "70 would balance the learner: it could use 146,826 tokens/s, an actor gives 1,927"
    text = text_of(ViewState(INFO, make_run(3), make_status(fleet={**FLEET, "advice": advice})), width)
    assert "1,927" in text
    none = make_status(fleet={**FLEET, "advice": "no advice before 5 steps are done"})
    assert "advice     none before 5 steps are done" in text_of(ViewState(INFO, make_run(3), none), width)


def test_the_frame_of_a_start_says_what_goes_on() -> None:
    text = text_of(ViewState(INFO, status=make_status(clients=[]), phase="actor-0 loads the model"))
    assert "actor-0 loads the model" in text
    assert "none yet" in text
    assert "actor-0 loads the model" in text_of(ViewState(INFO, phase="actor-0 loads the model"))


def test_a_silent_actor_is_marked() -> None:
    text = text_of(ViewState(INFO, make_run(3), make_status(clients=[make_actor(0, seen_s=40.0)])))
    assert "✗ silent" in text
    assert "actor-0 is silent, 40 s" in text


def test_alike_waits_are_told_together_with_the_longest() -> None:
    clients = [make_actor(number, waiting_for="a lease", since_s=float(number)) for number in range(12)]
    assert "12 actors wait for a lease, 11 s" in text_of(ViewState(INFO, make_run(3), make_status(clients=clients)))


def test_what_other_machines_say_cannot_move_the_cursor() -> None:
    clients = [make_actor(0, name="a\x1b[2J\nb", waiting_for="x\x07\x9b31m")]
    happenings = [Happening(1.7e9, "died\r\x1b]0;title\x07 \u202e")]
    fleet = {**FLEET, "advice": "\x1b[5m", "waiting_for": "\x1b[7m"}
    state = ViewState(INFO, make_run(3), make_status(clients=clients, fleet=fleet), happenings)
    assert all(line.isprintable() for line in lines_of(state, 120))


# --- actors that do not fit, and their order -----------------------------------------------------------


def test_actors_that_do_not_fit_are_scrolled() -> None:
    state = ViewState(INFO, make_run(47), make_actors(300), HAPPENINGS)
    frame = draw(state, 80, 24, Controls())
    assert rows_of(state, Controls()) == [f"actor-{number}" for number in range(frame.num_actors)]
    assert f"1–{frame.num_actors} of 300" in text_of(state, 80, 24, Controls())
    assert rows_of(state, Controls(offset=100))[0] == "actor-100"
    # Beyond the end the last ones are shown.
    assert rows_of(state, Controls(offset=10_000))[-1] == "actor-299"
    assert len(rows_of(state, Controls(offset=10_000))) == frame.num_actors


def test_once_shows_every_actor() -> None:
    lines = lines_of(ViewState(INFO, make_run(47), make_actors(300)), 80, None)
    assert sum(line.startswith("│ actor-") for line in lines) == 300


def test_actors_are_sorted_by_what_is_asked_and_unknown_ones_come_last() -> None:
    clients = [
        make_actor(0, metrics={}, version=None),
        make_actor(1, version={"incarnation": 1, "step": 40}, waiting_for="a lease", since_s=5.0),
        make_actor(2, waiting_for="weights", since_s=9.0),
        make_actor(10, version={"incarnation": 1, "step": 30}),
    ]
    state = ViewState(INFO, make_run(3), make_status(clients=clients))

    def order(sort: str, *, is_reversed: bool = False) -> list[int]:
        return [int(name[6:]) for name in rows_of(state, Controls(sort=sort, is_reversed=is_reversed), 40)]

    assert order("name") == [0, 1, 2, 10]
    assert order("name", is_reversed=True) == [10, 2, 1, 0]
    assert order("tokens/s") == [10, 2, 1, 0]
    assert order("tokens/s", is_reversed=True) == [1, 2, 10, 0]
    assert order("lag") == [10, 1, 2, 0]
    assert order("waiting") == [2, 1, 0, 10]
    assert order("waiting", is_reversed=True) == [1, 2, 0, 10]


def test_help_takes_the_place_of_the_body() -> None:
    lines = lines_of(ViewState(INFO, make_run(3), make_status()), 80, 24, Controls(shows_help=True))
    assert len(lines) <= 24
    assert {cell_len(line) for line in lines} == {80}
    assert "scroll the actors" in "\n".join(lines)
    assert not any("…" in line for line in lines)


def test_a_frame_without_controls_shows_no_keys() -> None:
    assert "quit" not in text_of(ViewState(INFO, make_run(3), make_status()))


# --- odd states ----------------------------------------------------------------------------------------

NUMBERS = st.none() | st.floats(-1e12, 1e12) | st.just(0.0)
TEXTS = st.text(max_size=30)


@st.composite
def odd_records(draw_value: st.DrawFn) -> list[dict[str, Any]]:
    """What check_record lets through: any float may be null, counts and steps may be any, diagnostics anything."""
    steps = draw_value(st.lists(st.integers(-2, 10**7), max_size=6, unique=True).map(sorted))
    nullable = [key for key, value in make_record(1).items() if isinstance(value, float)]
    by_lag = st.dictionaries(TEXTS | st.sampled_from("0129"), st.none() | st.dictionaries(st.just("tokens"), NUMBERS))
    return [
        make_record(
            step,
            lag_max=draw_value(st.integers(0, 10**9)),
            diagnostics=draw_value(st.none() | st.fixed_dictionaries({"by_lag": st.none() | TEXTS | by_lag})),
            **{key: draw_value(NUMBERS) for key in nullable},
        )
        for step in steps
    ]


@st.composite
def odd_statuses(draw_value: st.DrawFn) -> dict[str, Any]:
    """What the protocol lets through."""
    versions = st.fixed_dictionaries({"incarnation": st.integers(1, 9), "step": st.integers(0, 10**9)})
    client = st.fixed_dictionaries(
        {
            "name": TEXTS.filter(bool),
            "role": st.sampled_from(["actor", "learner", "observer"]),
            "version": st.none() | versions,
            "waiting_for": TEXTS,
            "num_leases": st.integers(0, 10**12),
            "seen_s": st.floats(0, 1e9),
            "since_s": st.floats(0, 1e9),
            "host": TEXTS,
            "metrics": st.dictionaries(st.sampled_from([ACTOR_TOKEN_RATE.name, ACTOR_BUSY.name]), st.floats()),
        }
    )
    counts = st.dictionaries(st.sampled_from(["ready", "settled", "dead_letter", "odd\x1b"]), st.integers(0, 10**12))
    return make_status(
        clients=draw_value(st.lists(client, max_size=12)),
        version=draw_value(versions),
        lineage={"branch_steps": draw_value(st.lists(st.integers(0, 10**9), max_size=3))},
        ledger=draw_value(counts),
        opened=draw_value(st.integers(0, 10**12)),
        lags=draw_value(st.dictionaries(st.integers(0, 10**6).map(str), st.integers(0, 10**9), max_size=4)),
        fleet=draw_value(st.none() | st.builds(dict, wanted=st.integers(0, 10**6), advice=TEXTS, waiting_for=TEXTS)),
        draining=draw_value(st.booleans()),
    )


@settings(max_examples=200)
@given(
    records=odd_records(),
    status=st.none() | odd_statuses(),
    happenings=st.lists(st.builds(Happening, st.floats(0, 4e9), TEXTS), max_size=12),
    info=st.builds(RunInfo, TEXTS, TEXTS, TEXTS, st.integers(0, 10**9), st.integers(0, 10**6)),
    size=st.sampled_from([(80, 24), (120, 24), (80, None), (60, 10), (200, 60), (20, 5), (1, 1)]),
    controls=st.none() | st.builds(Controls, st.sampled_from(SORTS), st.booleans(), st.integers(0, 400)),
    flags=st.tuples(st.booleans(), st.floats(0, 1e9), st.floats(0, 1e9)),
)
def test_no_state_breaks_a_frame(
    records: Any, status: Any, happenings: Any, info: RunInfo, size: Any, controls: Any, flags: Any
) -> None:
    width, height = size
    is_over, idle_s, silent_s = flags
    state = ViewState(info, records, status, happenings, idle_s=idle_s, silent_s=silent_s, is_over=is_over)
    lines = lines_of(state, width, height, controls)
    assert all(cell_len(line) <= width for line in lines)
    assert height is None or len(lines) <= height
    assert all(line.isprintable() for line in lines)
    document(state)


def test_thousands_of_steps_and_hundreds_of_actors_draw_fast_enough_to_watch() -> None:
    state = ViewState(RunInfo("long", "async", "tiny", 100_000, 2), make_run(5000), make_actors(300), HAPPENINGS)
    assert {cell_len(line) for line in lines_of(state, 120, 40, Controls())} == {120}


def test_sorting_keeps_every_actor() -> None:
    actors = ViewState(INFO, status=make_actors(50)).actors
    for sort in SORTS:
        assert sorted(part.name for part in sort_actors(actors, sort)) == sorted(part.name for part in actors)
