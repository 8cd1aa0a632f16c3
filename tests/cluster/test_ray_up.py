"""`ray up deploy/cluster.local.yaml` on three hosts, a job across them, actors that come and go, `ray down`.

The hosts are namespaces of this machine (tests/cluster/hosts.py) and share its disk, so that one thing differs from the
file: its first set-up command, which would install Rapid on each host, is left out.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.hosts import Hosts, missing

ROOT = Path(__file__).resolve().parents[2]
_LIMIT_S = 240.0

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(bool(missing()), reason=f"this machine lacks {', '.join(missing())}"),
]


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    with Hosts(["laptop", "head", "worker-1", "worker-2"]) as hosts:
        yield hosts


def cluster_file(hosts: Hosts) -> Path:
    """The shipped file with these hosts' addresses."""
    config = yaml.safe_load((ROOT / "deploy" / "cluster.local.yaml").read_text())
    workers = [host.address for host in hosts.hosts if host.name.startswith("worker")]
    config["provider"] |= {"head_ip": hosts["head"].address, "worker_ips": workers}
    config["auth"] = {"ssh_user": "root", "ssh_private_key": str(hosts.key)}
    install, *others = config["setup_commands"]
    assert "make VENV=" in install
    config["setup_commands"] = others
    # Three hosts on two cores: as many as they think they have.
    for key in ("head_start_ray_commands", "worker_start_ray_commands"):
        config[key] = [command.replace("ray start", "ray start --num-cpus=2") for command in config[key]]
    path = hosts.folder / "cluster.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def wait_until(holds: Callable[[], bool], what: Callable[[], str], limit_s: float = _LIMIT_S) -> float:
    """Seconds until it holds; fails after the limit with what `what` says."""
    begin = time.monotonic()
    while not holds():
        if time.monotonic() - begin > limit_s:
            pytest.fail(f"not within {limit_s:.0f} s: {what()}")
        time.sleep(0.5)
    return time.monotonic() - begin


def records(folder: Path) -> list[dict[str, Any]]:
    path = folder / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def parts(hosts: Hosts, what: str) -> dict[str, int]:
    """How many processes of a part each host runs."""
    found = {host.name: sum(what in line for line in host.processes()) for host in hosts.hosts}
    return {name: count for name, count in found.items() if count}


def test_a_cluster_from_one_file_runs_a_job_whose_actors_come_and_go(hosts: Hosts, tmp_path: Path) -> None:
    laptop, cluster, runs = hosts["laptop"], cluster_file(hosts), hosts.folder / "runs"
    told, job_log = [], tmp_path / "job.log"

    def say(command: str) -> str:
        output = laptop.run(f"cd {ROOT} && {command}")
        told.append(f"$ {command}\n{output}")
        return output

    say("ray get-auth-token --generate > /dev/null")
    say(f"ray up -y --no-config-cache {cluster}")
    status = f"ray exec {cluster} 'ray status'"
    wait_until(lambda: "0.0/6.0 CPU" in say(status), lambda: told[-1])
    forward = f"echo $$ > {hosts.folder / 'forward'}; cd {ROOT}; exec ray dashboard {cluster}"
    laptop.begin(f"setsid -w bash -c '{forward}'", tmp_path / "dashboard.log")
    laptop.run(
        "for second in $(seq 60); do (: < /dev/tcp/127.0.0.1/8265) 2> /dev/null && exit 0; sleep 1; done; exit 1"
    )
    sets = {
        "run.directory": runs,
        "learner.resource": "learner",
        "actors.resource": "actor",
        "actors.cpus": 2,
        "actors.count": 2,
        "actors.max": 2,
        "schedule.steps": 100000,
    }
    options = " ".join(f"--set {name}={value}" for name, value in sets.items())
    submit = "RAY_AUTH_MODE=token ray job submit --submission-id first --address http://127.0.0.1:8265 --working-dir ."
    job = laptop.begin(f"cd {ROOT} && {submit} -- rapid train recipes/tiny.toml --run first {options}", job_log)
    folder = runs / "first"
    wait_until(lambda: len(records(folder)) >= 3 or job.poll() is not None, job_log.read_text)
    assert job.poll() is None, job_log.read_text()
    assert parts(hosts, "ray::LearnerPart") == {"head": 1}
    assert parts(hosts, "ray::HubPart") == {"head": 1}
    wait_until(lambda: parts(hosts, "ray::ActorPart") == {"worker-1": 1, "worker-2": 1}, job_log.read_text)

    say(f"ray exec {cluster} 'rapid scale actors 1 first --runs {runs}'")
    wait_until(lambda: "actor-1 has left" in job_log.read_text(), job_log.read_text)
    wait_until(lambda: sum(parts(hosts, "ray::ActorPart").values()) == 1, lambda: str(parts(hosts, "ray::")))
    say(f"ray exec {cluster} 'rapid scale actors 2 first --runs {runs}'")
    wait_until(lambda: sum(parts(hosts, "VLLM::EngineCore").values()) == 2, job_log.read_text)
    seen = len(records(folder))
    wait_until(lambda: len(records(folder)) > seen + 3, job_log.read_text)

    say("RAY_AUTH_MODE=token ray job stop --address http://127.0.0.1:8265 first")
    told.append(job_log.read_text())
    assert "adds up" in laptop.run(f"cd {ROOT} && rapid ledger {folder}")
    assert max(record["lag_max"] for record in records(folder)) <= 2
    assert any((folder / "checkpoints").glob("step-*"))
    assert parts(hosts, "Part.") == {}
    laptop.run(f"kill -- -$(cat {hosts.folder / 'forward'})")
    say(f"ray down -y {cluster}")
    left = {host.name: host for host in hosts.hosts if host.name != "laptop"}
    gone_s = wait_until(
        lambda: not any(host.processes() for host in left.values()),
        lambda: str({name: host.processes() for name, host in left.items()}),
    )
    told.append(f"no process is left on any host {gone_s:.0f} s after ray down")
    print("\n".join(told))
