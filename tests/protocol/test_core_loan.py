"""Lending cores: what the learner notes, the engines see."""

from __future__ import annotations

from pathlib import Path

from protocol.core_loan import Borrower, CoreLoan, Lender


def test_cores_are_lent_while_the_learner_waits_and_after_it_has_ended(tmp_path: Path) -> None:
    file = tmp_path / "core-loans"
    borrower = Borrower(CoreLoan(file=file, own=[0], lent=[1]))
    assert not borrower.may_borrow, "nobody has said anything"
    lender = Lender(file)
    assert not borrower.may_borrow, "a learner that starts works"
    lender.note(works=False)
    assert borrower.may_borrow
    lender.note(works=True)
    assert not borrower.may_borrow
    lender.close()
    assert borrower.may_borrow


def test_a_successor_takes_its_cores_back(tmp_path: Path) -> None:
    file = tmp_path / "core-loans"
    Lender(file).note(works=False)
    borrower = Borrower(CoreLoan(file=file, own=[0], lent=[1]))
    assert borrower.may_borrow
    Lender(file)
    assert not borrower.may_borrow


def test_a_learner_without_a_file_lends_nothing() -> None:
    lender = Lender(None)
    lender.note(works=False)
    lender.close()
