from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rapid.served_run import ServedRun, serve_run


@pytest.fixture
def served(tmp_path: Path) -> Iterator[ServedRun]:
    """A run that goes on in `tmp_path/trial`, after three steps."""
    with serve_run(tmp_path / "trial") as run:
        run.train(3)
        yield run
