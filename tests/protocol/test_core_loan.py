"""Lending cores: what one notes, the others see."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from protocol.core_loan import EVALUATOR, FIRST_ACTOR, LEARNER, Borrower, CoreLoan, Lender


class Threads:
    """A library that starts a thread when it is first needed."""

    def __init__(self) -> None:
        self.number = 1
        self._end = threading.Event()
        self._started: list[threading.Thread] = []

    def set(self, number: int) -> None:
        self.number = number
        while len(self._started) < number - 1:
            self._started.append(threading.Thread(target=self._end.wait, daemon=True))
            self._started[-1].start()

    @property
    def cores(self) -> list[set[int]]:
        return [os.sched_getaffinity(thread.native_id or 0) for thread in self._started]

    def close(self) -> None:
        self._end.set()


def loan(file: Path, seat: int, lent: list[int] | None = None) -> CoreLoan:
    return CoreLoan(file=file / "core-loans", seat=seat, lent=lent or [])


def borrower(file: Path, seat: int) -> Borrower:
    return Borrower(loan(file, seat, [0]), 1, lambda number: None)


def test_an_engine_may_borrow_while_the_learner_waits_and_after_it_has_ended(tmp_path: Path) -> None:
    engine = borrower(tmp_path, FIRST_ACTOR)
    assert not engine.may_borrow, "nobody has said anything"
    learner = Lender(loan(tmp_path, LEARNER))
    assert not engine.may_borrow, "a learner that starts works"
    learner.note(works=False)
    assert engine.may_borrow
    learner.note(works=True)
    assert not engine.may_borrow
    learner.close()
    learner.close()
    assert engine.may_borrow


def test_the_learner_may_borrow_while_all_actors_wait(tmp_path: Path) -> None:
    learner = borrower(tmp_path, LEARNER)
    Lender(loan(tmp_path, LEARNER)).note(works=False)
    assert not learner.may_borrow, "no actor has said anything"
    second = Lender(loan(tmp_path, FIRST_ACTOR + 1))
    second.note(works=False)
    assert not learner.may_borrow, "there is a first actor, which has not said anything"
    first = Lender(loan(tmp_path, FIRST_ACTOR))
    first.note(works=False)
    assert learner.may_borrow
    second.note(works=True)
    assert not learner.may_borrow
    second.note(works=False)
    evaluator = Lender(loan(tmp_path, EVALUATOR))
    assert not learner.may_borrow, "an evaluator has what actors leave over"
    evaluator.note(works=False)
    assert learner.may_borrow


def test_a_successor_takes_its_cores_back(tmp_path: Path) -> None:
    Lender(loan(tmp_path, LEARNER)).note(works=False)
    engine = borrower(tmp_path, FIRST_ACTOR)
    assert engine.may_borrow
    Lender(loan(tmp_path, LEARNER))
    assert not engine.may_borrow


def test_who_has_no_loan_lends_nothing() -> None:
    lender = Lender(None)
    lender.note(works=False)
    lender.close()


def test_borrowed_threads_are_on_the_others_cores(tmp_path: Path) -> None:
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        pytest.skip("borrowing wants a second core")
    threads, learner = Threads(), Lender(loan(tmp_path, LEARNER))
    engine = Borrower(loan(tmp_path, FIRST_ACTOR, cores[-1:]), 1, threads.set)
    try:
        for waits in (False, True, False, True):
            learner.note(works=not waits)
            engine.adjust()
            assert threads.number == 1 + waits
        assert threads.cores == [{cores[-1]}], "one thread, which is kept"
    finally:
        threads.close()
