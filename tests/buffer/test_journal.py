from __future__ import annotations

from buffer.journal import MAX_LINES, SAME_LINE_S, Journal
from buffer.states import Event, State
from buffer.store import Transition


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def happened(event: Event, entry_id: str = "0:1", reason: str = "") -> Transition:
    return Transition(0, entry_id, event, State.READY, 1, 1, None, reason)


def texts(journal: Journal) -> list[str]:
    return [line.text for line in journal.lines]


def test_what_happens_often_is_counted_in_one_line_and_shows_its_last_cause() -> None:
    journal = Journal(Clock())
    journal.tell(
        [happened(Event.FAIL, "0:1", "it hung"), happened(Event.LEASE), happened(Event.FAIL, "0:2", "it died")]
    )
    assert texts(journal) == ["groups failed and are tried again: 2 (last 0:2: it died)"]
    (line,) = journal.lines
    assert (line.count, line.is_warning, line.number) == (2, True, 1)


def test_prompts_handed_back_are_told_apart_by_cause() -> None:
    journal = Journal(Clock())
    for cause in ("expired", "actor gone", "expired"):
        journal.tell([happened(Event.RELEASE, reason=cause)])
    assert texts(journal) == ["prompts handed back: 1 (actor gone)", "prompts handed back: 2 (expired)"]


def test_a_count_begins_anew_after_a_while() -> None:
    clock = Clock()
    journal = Journal(clock)
    journal.tell([happened(Event.STALE, reason="lag beyond the bound")])
    clock.now += SAME_LINE_S + 1
    journal.tell([happened(Event.STALE, reason="lag beyond the bound")])
    assert [(line.count, line.number, line.time_s) for line in journal.lines] == [
        (1, 1, clock.now - SAME_LINE_S - 1),
        (1, 2, clock.now),
    ]


def test_a_topic_keeps_its_newest_line_only() -> None:
    journal = Journal(Clock())
    journal.note("step 5 is on the disk", topic="checkpoint")
    journal.note("actor-0 joined")
    journal.note("step 10 is on the disk", topic="checkpoint")
    assert texts(journal) == ["actor-0 joined", "step 10 is on the disk"]


def test_lines_and_texts_are_bounded() -> None:
    journal = Journal(Clock())
    for number in range(MAX_LINES + 5):
        journal.note(f"{number} " + "x" * 10_000)
    assert len(journal.lines) == MAX_LINES
    assert journal.lines[0].text.startswith("5 ")
    assert max(len(text) for text in texts(journal)) == 400
