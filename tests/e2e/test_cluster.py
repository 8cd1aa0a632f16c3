"""The main job on a Ray that was there before, from a shell and as a submitted job."""

from __future__ import annotations

import json
import re
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from tests.e2e.cluster import Cluster
from tests.e2e.conftest import TINY, rapid
from tests.ports import quiet_port

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    cluster = Cluster("--num-cpus", "4")
    try:
        cluster.wait()
        yield cluster
    finally:
        cluster.close()


def check(folder: Path, steps: int) -> None:
    """The run in this folder is complete."""
    records: list[dict[str, Any]] = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == list(range(1, steps + 1))
    assert max(record["lag_max"] for record in records) <= 2
    assert "adds up" in rapid("ledger", str(folder)).stdout


def test_a_run_joins_the_cluster_of_ray_address_and_leaves_it_as_it_was(cluster: Cluster, tmp_path: Path) -> None:
    done = rapid(
        *("train", TINY, "--run", "joined", "--set", f"run.directory={tmp_path}", "--set", "schedule.steps=6"),
        RAY_ADDRESS=cluster.address,
        RAY_AUTH_TOKEN=cluster.token,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    check(tmp_path / "joined", 6)
    cluster.wait_until(lambda: cluster.parts() == [], "end of all parts")
    assert cluster.process.poll() is None


def train_scripted(cluster: Cluster, folder: Path, *overrides: str) -> Any:
    """A run of the scripted engine on the cluster, which has four CPUs."""
    fixed = (f"run.directory={folder}", "actors.engine=scripted", "actors.scripted.tokens_per_s=300")
    sets = [part for override in (*fixed, *overrides) for part in ("--set", override)]
    return rapid("train", TINY, "--run", "run", *sets, RAY_ADDRESS=cluster.address, RAY_AUTH_TOKEN=cluster.token)


def test_a_cluster_too_small_for_all_says_who_waits_and_goes_on_with_the_others(
    cluster: Cluster, tmp_path: Path
) -> None:
    run = train_scripted(cluster, tmp_path, "actors.count=2", "actors.cpus=2.5", "schedule.steps=4")
    assert run.returncode == 0, run.stdout + run.stderr
    assert re.search(r"actor-[01] waits for a place with \{'CPU': 2.5\} for \d+ s; free in the cluster", run.stdout)
    check(tmp_path / "run", 4)
    cluster.wait_until(lambda: cluster.parts() == [], "end of all parts")


def test_a_run_that_finds_too_few_places_says_so_and_gives_up(cluster: Cluster, tmp_path: Path) -> None:
    sizes = ("actors.count=2", "actors.min=2", "actors.cpus=2.5", "run.start_timeout_s=40")
    run = train_scripted(cluster, tmp_path, *sizes, "schedule.steps=100000")
    assert run.returncode == 1, run.stdout + run.stderr
    assert "1 of at least 2 actors have a place" in run.stderr
    assert "lower actors.cpus or actors.min, or raise run.start_timeout_s" in run.stderr
    cluster.wait_until(lambda: cluster.parts() == [], "end of all parts")


def test_a_learner_that_no_node_can_hold_is_named(cluster: Cluster, tmp_path: Path) -> None:
    run = train_scripted(cluster, tmp_path, "learner.threads=64", "run.start_timeout_s=6")
    assert run.returncode == 1, run.stdout + run.stderr
    assert "learner-0 {'CPU': 64.0} (more than any of the 1 nodes has)" in run.stderr
    again = train_scripted(cluster, tmp_path, "learner.threads=64", "run.start_timeout_s=6")
    assert again.returncode == 1, "the same command may be given again, since nothing was done"
    cluster.wait_until(lambda: cluster.parts() == [], "end of all parts")


def test_metrics_are_served_at_the_address_of_the_node(cluster: Cluster, tmp_path: Path) -> None:
    targets, seen, served = tmp_path / ".targets" / "run.json", dict[str, str](), set[str]()
    train = threading.Thread(target=train_scripted, args=(cluster, tmp_path, "schedule.steps=12"))
    train.start()
    while not {"hub", "learner-0", "actor-0", "launcher"} <= set(seen) and train.is_alive():
        if targets.exists():
            seen |= {one["labels"]["process"]: one["targets"][0] for one in json.loads(targets.read_text())}
        time.sleep(0.1)
    for process, address in seen.items():
        urllib.request.urlopen(f"http://{address}/metrics", timeout=10).close()
        served.add(process)
    train.join()
    assert served >= {"hub", "learner-0", "actor-0", "launcher"}
    assert {address.rpartition(":")[0] for address in seen.values()} == {ray.util.get_node_ip_address()}
    assert not targets.exists()


def test_a_cluster_that_is_not_there_is_one_clear_error(tmp_path: Path) -> None:
    address = f"{ray.util.get_node_ip_address()}:{quiet_port()}"
    failed = rapid("train", TINY, "--run", "x", "--set", f"run.directory={tmp_path}", RAY_ADDRESS=address)
    assert failed.returncode == 2
    assert not (tmp_path / "x").exists()
    assert f"RAY_ADDRESS = '{address}': nobody answers there" in failed.stderr
    assert "unset RAY_ADDRESS" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_a_submitted_job_runs_from_the_repository(cluster: Cluster, tmp_path: Path) -> None:
    done = cluster.ray(
        *("job", "submit", "--address", f"http://{cluster.dashboard}", "--working-dir", "."),
        *("--", "rapid", "train", TINY, "--run", "job"),
        *("--set", f"run.directory={tmp_path}", "--set", "schedule.steps=6"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Reward" in done.stdout
    check(tmp_path / "job", 6)
    cluster.wait_until(lambda: cluster.parts() == [], "end of all parts")
