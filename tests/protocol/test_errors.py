"""Errors cross from process to process, by Ray's hand, with all they say."""

from __future__ import annotations

import pickle

import pytest

from buffer.errors import TransitionError
from protocol.errors import RefusedError


@pytest.mark.parametrize(
    "error",
    [RefusedError("settled", "the learner is too late"), TransitionError("0:1", "commit", "ready", ["lease"])],
)
def test_an_error_survives_the_way_to_another_process(error: Exception) -> None:
    # Ray pickles what a part raises; these bytes are our own.
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)
