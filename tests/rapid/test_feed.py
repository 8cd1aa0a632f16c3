"""Where those who watch a run read its step records: from the file, or from the hub."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from protocol.status import Status
from rapid.feed import Feed
from rapid.locate import connect
from telemetry.run_dir import RunDirectory
from tests.rapid.served_run import ServedRun
from tests.telemetry.fakes import make_record


@pytest.mark.parametrize("has_folder", [False, True])
def test_without_metrics_jsonl_the_records_come_from_the_hub_and_each_once(
    served: ServedRun, tmp_path: Path, has_folder: bool
) -> None:
    # As on a launcher that shares no files with the learner, and as with the hub's address alone.
    folder = RunDirectory.open(tmp_path / "trial") if has_folder else None
    with contextlib.closing(connect(served.address)) as client:
        feed = Feed(client, folder)
        assert feed.look()
        assert [record["step"] for record in feed.records()] == [1, 2, 3]
        served.train(2)
        assert feed.look()
        assert feed.look()
        assert [record["step"] for record in feed.records()] == [1, 2, 3, 4, 5]
        answer = feed.ask().result()
        assert isinstance(answer, Status)
        assert (answer.records, answer.num_records) == ([], 5)


def test_where_metrics_jsonl_can_be_read_the_hub_is_not_asked_for_records(served: ServedRun, tmp_path: Path) -> None:
    folder = RunDirectory.open(tmp_path / "trial")
    with contextlib.closing(connect(served.address)) as client:
        feed = Feed(client, folder)
        feed.look()
        assert len(feed.records()) == 3
        folder.append_metrics(make_record(1))
        feed.look()
        assert len(feed.records()) == 1
