"""Comparing as mathematics: equal ones are found, and none of a model's inventions hangs or fills the worker."""

from __future__ import annotations

import os
import time

import psutil
import pytest

from tasks import mathematics
from tasks.limited import call_limited
from tasks.mathematics import is_same_mathematics


@pytest.mark.parametrize(("reference", "answer"), [("1.50", "1.5"), ("1,\\!000", "1,000"), ("\\tfrac12", "\\frac12")])
def test_other_writing_of_the_same_is_equal(reference: str, answer: str) -> None:
    assert is_same_mathematics(reference, f"\\boxed{{{answer}}}", answer)


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "answer",
    ["9^{9^{9}}", "9^{9^{9^{9}}}", "10^{10^{10}}", "(10^{9})!", "((((2^{99})!)!)!)!", "\\sqrt{" * 3000 + "}" * 3000],
)
def test_an_answer_that_cannot_be_computed_is_wrong_within_seconds(answer: str) -> None:
    begin = time.monotonic()
    assert not is_same_mathematics("5", f"\\boxed{{{answer}}}", answer)
    assert time.monotonic() - begin < 25


def test_what_math_verify_cannot_stop_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    # One power of whole numbers is one call to C: no signal ends it, and it would take minutes.
    monkeypatch.setattr(mathematics, "verify_text", lambda *_: 3 ** (4 * 10**7) > 0)
    monkeypatch.setattr(mathematics, "KILL_S", 0.5)
    assert not is_same_mathematics("x+1", "\\boxed{x^2}", "x^2")


def children() -> set[int]:
    return {process.pid for process in psutil.Process().children()}


def test_a_question_is_answered_in_a_process_of_its_own() -> None:
    parent = os.getpid()
    assert call_limited(lambda: os.getpid() != parent, 5.0, 2**28)
    assert not call_limited(lambda: False, 5.0, 2**28)


def test_a_question_that_raises_ends_hangs_or_takes_all_memory_is_answered_no() -> None:
    def spin() -> bool:
        while True:
            pass

    before = children()
    assert not call_limited(lambda: bool(1 / 0), 30.0, 2**28)
    assert not call_limited(lambda: os._exit(0) or True, 30.0, 2**28)
    assert not call_limited(lambda: len(bytearray(2**30)) > 0, 30.0, 2**28)
    begin = time.monotonic()
    assert not call_limited(spin, 0.3, 2**28)
    assert time.monotonic() - begin < 10
    assert children() <= before, "a process is left behind"
