from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import ray

from rapid.config import RapidConfig
from rapid.environment import describe_parts, write_environment
from telemetry.run_dir import RunDirectory


def config(**sections: dict[str, object]) -> RapidConfig:
    return RapidConfig.model_validate({"model": {"path": "tiny"}, "task": {"name": "x:Y"}} | sections)


def test_parts_have_the_cores_that_they_are_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    found = describe_parts(
        config(actors={"count": 2}, learner={"threads": 2, "ranks": 2, "batch_groups": 4}), 0, on_cluster=False
    )
    # Two ranks of two threads take four of the eight cores; two actors share the others.
    assert found == {"learner": {"cores": 4, "gpus": 0}, "actor": {"cores": 2, "gpus": 0}}


def test_on_a_cluster_an_actor_has_one_core_and_gpus_are_shared_out() -> None:
    found = describe_parts(config(actors={"count": 3}, learner={"threads": 4}), 2, on_cluster=True)
    # Four parts on two GPUs: half a one each.
    assert found == {"learner": {"cores": 4, "gpus": 0.5}, "actor": {"cores": 1, "gpus": 0.5}}


def test_the_environment_names_versions_and_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_dir = RunDirectory.create(tmp_path / "trial")
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 2.0})
    write_environment(run_dir, config(), on_cluster=False)
    found = json.loads(run_dir.environment_path.read_text())
    assert found["packages"]["ray"] == ray.__version__
    assert found["cores"] == len(os.sched_getaffinity(0))
    assert found["memory_gib"] > 0
    assert (found["nodes"], found["on_cluster"]) == ([], False)
    assert set(found["parts"]) == {"learner", "actor"}
