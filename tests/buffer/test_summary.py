"""The table that `rapid ledger` prints, and the file behind it."""

from __future__ import annotations

from pathlib import Path

import pytest

from buffer.config import BufferConfig
from buffer.errors import LedgerError
from buffer.machine import Machine
from buffer.simulation import scripted_group
from buffer.summary import STATE_PATH, ledger_table, read_state, summarise, write_state
from protocol.config import ScheduleConfig
from protocol.version import PolicyVersion


def busy_state() -> dict[str, object]:
    machine = Machine(BufferConfig(max_attempts=1, epochs=1, shuffle=False), ScheduleConfig(), 3, num_prompts=9)
    first, second, _ = machine.actors.lease("a", 3, PolicyVersion(1, 0), 0.0)
    machine.actors.submit(first.lease_id, scripted_group(first.entry_id, [PolicyVersion(1, 0)], signal=False))
    machine.actors.give_back(second.lease_id, True, "the reward raised ValueError")
    return machine.snapshot()


def test_table_shows_every_state_and_that_the_sum_adds_up() -> None:
    table = ledger_table(busy_state())
    lines = {line.split()[0]: line.split()[1] for line in table.splitlines() if len(line.split()) > 1}
    assert (lines["filtered"], lines["dead_letter"], lines["leased"], lines["ready"]) == ("1", "1", "1", "0")
    assert (lines["sum"], lines["opened"], lines["of"]) == ("3", "3", "9")
    assert "the sum adds up" in table
    assert "dead letter 0:1 after 1 attempts: the reward raised ValueError" in table


def test_sum_that_does_not_add_up_is_said_aloud() -> None:
    state = busy_state()
    ledger = state["ledger"]
    assert isinstance(ledger, dict)
    ledger["counts"]["filtered"] = 2
    assert not summarise(state).adds_up
    assert "THE SUM DOES NOT ADD UP" in ledger_table(state)


def test_state_survives_the_file(tmp_path: Path) -> None:
    write_state(tmp_path, busy_state())
    assert read_state(tmp_path) == busy_state()
    assert [path.name for path in (tmp_path / "ledger").iterdir()] == ["state.json"]


@pytest.mark.parametrize("content", [None, "", "{", "[]"])
def test_unreadable_file_is_one_clear_error(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "ledger").mkdir()
        (tmp_path / STATE_PATH).write_text(content)
    with pytest.raises(LedgerError, match=r"state\.json"):
        read_state(tmp_path)


def test_file_of_something_else_is_refused() -> None:
    with pytest.raises(LedgerError, match="not a saved state"):
        ledger_table({"hello": 1})
