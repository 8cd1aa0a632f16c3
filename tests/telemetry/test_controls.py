from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry.controls import Controls, press
from telemetry.keys import KeyReader

PAGE, ACTORS = 5, 12


def pressed(*keys: str, controls: Controls | None = None) -> Controls:
    controls = controls or Controls()
    for key in keys:
        controls = press(controls, key, PAGE, ACTORS)
    return controls


def test_s_goes_through_the_orders_and_r_turns_one_round() -> None:
    assert [pressed(*"s" * count).sort for count in range(5)] == ["name", "tokens/s", "lag", "waiting", "name"]
    assert pressed("r").is_reversed
    assert not pressed("r", "r").is_reversed


def test_p_and_space_pause_and_go_on() -> None:
    assert pressed("p").is_paused
    assert pressed("space").is_paused
    assert not pressed("p", "space").is_paused


def test_scrolling_stays_within_the_actors() -> None:
    assert pressed("up").offset == 0
    assert pressed("down", "j", "k").offset == 1
    assert pressed("page down").offset == 5
    # 12 actors, 5 on the screen: 7 are above the last page.
    assert pressed("page down", "page down", "down").offset == 7
    assert pressed("end").offset == 7
    assert pressed("end", "page up").offset == 2
    assert pressed("end", "home").offset == 0
    assert pressed("down", "s").offset == 0


def test_any_key_leaves_the_help_and_does_nothing_else() -> None:
    assert pressed("?").shows_help
    assert pressed("?", "p") == Controls()


def test_unknown_keys_change_nothing() -> None:
    assert pressed("x", "", "escape") == Controls()


@given(st.lists(st.sampled_from(["up", "down", "page up", "page down", "home", "end", "s", "r", "p", "?"])))
def test_whatever_is_pressed_the_offset_is_one_that_can_be_shown(keys: list[str]) -> None:
    assert 0 <= pressed(*keys).offset <= ACTORS - PAGE


# --- bytes to keys ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "keys"),
    [
        (b"q", ["q"]),
        (b"sr ?", ["s", "r", "space", "?"]),
        (b"\x1b[A\x1b[B", ["up", "down"]),
        (b"\x1bOA\x1bOB", ["up", "down"]),
        (b"\x1b[5~\x1b[6~\x1b[H\x1b[F", ["page up", "page down", "home", "end"]),
        # Ctrl with an arrow, and a function key, have no meaning, and nothing of them is taken for a letter.
        (b"\x1b[1;5Aq\x1b[15~q", ["", "q", "", "q"]),
        ("ä".encode(), ["", ""]),
    ],
)
def test_bytes_become_keys(data: bytes, keys: list[str]) -> None:
    assert KeyReader().feed(data) == keys


def test_a_sequence_in_pieces_is_one_key_and_a_lone_escape_is_told_at_last() -> None:
    reader = KeyReader()
    assert reader.feed(b"\x1b") == []
    assert reader.feed(b"[") == []
    assert reader.is_within_key
    assert reader.feed(b"Aq") == ["up", "q"]
    assert reader.feed(b"\x1b") == []
    assert reader.flush() == ["escape"]
    assert reader.flush() == []


@given(st.binary(max_size=200), st.integers(0, 200))
def test_no_bytes_break_the_reader(data: bytes, cut: int) -> None:
    reader = KeyReader()
    keys = reader.feed(data[:cut]) + reader.feed(data[cut:])
    assert all(key == "" or key.isprintable() for key in keys)
