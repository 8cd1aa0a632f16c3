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


class Trial:
    """A cluster and the job on it, step by step, typed on the laptop; keeps what was said, to be printed as a log."""

    def __init__(self, hosts: Hosts, job_log: Path) -> None:
        self.told: list[str] = []
        self._hosts, self._laptop, self._file = hosts, hosts["laptop"], cluster_file(hosts)
        self._runs = hosts.folder / "runs"
        self._folder, self._job_log = self._runs / "first", job_log
        self._forward = hosts.folder / "forward"

    def bring_up(self, forward_log: Path) -> None:
        """`ray up`, until the three hosts are one cluster, and its dashboard's port is at hand."""
        self._say("ray get-auth-token --generate > /dev/null")
        self._say(f"ray up -y --no-config-cache {self._file}")
        status = f"ray exec {self._file} 'ray status'"
        wait_until(lambda: "0.0/6.0 CPU" in self._say(status), lambda: self.told[-1])
        forward = f"echo $$ > {self._forward}; cd {ROOT}; exec ray dashboard {self._file}"
        self._laptop.begin(f"setsid -w bash -c '{forward}'", forward_log)
        self._laptop.run(
            "for second in $(seq 60); do (: < /dev/tcp/127.0.0.1/8265) 2> /dev/null && exit 0; sleep 1; done; exit 1"
        )

    def submit_job(self) -> None:
        """A run whose learner asks for the head and whose two actors ask for a worker each, until it has learned."""
        sets = {
            "run.directory": self._runs,
            "learner.resource": "learner",
            "actors.resource": "actor",
            "actors.cpus": 2,
            "actors.count": 2,
            "actors.max": 2,
            "schedule.steps": 100000,
        }
        options = " ".join(f"--set {name}={value}" for name, value in sets.items())
        submit = "RAY_AUTH_MODE=token ray job submit --submission-id first --address http://127.0.0.1:8265"
        train = f"--working-dir . -- rapid train recipes/tiny.toml --run first {options}"
        self._job = self._laptop.begin(f"cd {ROOT} && {submit} {train}", self._job_log)
        wait_until(lambda: self.num_steps() >= 3 or self._job.poll() is not None, self._job_log.read_text)
        assert self._job.poll() is None, self._job_log.read_text()

    def scale(self, actors: int) -> None:
        """`rapid scale`, typed on the head."""
        self._say(f"ray exec {self._file} 'rapid scale actors {actors} first --runs {self._runs}'")

    def stop_job(self) -> None:
        """`ray job stop`; it was asked to end, and writes its checkpoint first."""
        self._say("RAY_AUTH_MODE=token ray job stop --address http://127.0.0.1:8265 first")
        self.wait_until(lambda: self._job.poll() is not None)
        self.told.append(self._job_log.read_text())
        assert "stopping after this step, with a checkpoint" in self.told[-1]

    def check_run(self) -> None:
        """Everything is accounted for, within the bound, and on the disk."""
        assert "adds up" in self._laptop.run(f"cd {ROOT} && rapid ledger {self._folder}")
        assert max(record["lag_max"] for record in self._records()) <= 2
        assert any((self._folder / "checkpoints").glob("step-*"))
        assert self.parts("Part.") == {}

    def take_down(self) -> None:
        """`ray down`, until no process is left on any host of the cluster."""
        self._laptop.run(f"kill -- -$(cat {self._forward})")
        self._say(f"ray down -y {self._file}")
        left = {host.name: host for host in self._hosts.hosts if host.name != "laptop"}
        gone_s = wait_until(
            lambda: not any(host.processes() for host in left.values()),
            lambda: str({name: host.processes() for name, host in left.items()}),
        )
        self.told.append(f"no process is left on any host {gone_s:.0f} s after ray down")

    def wait_until(self, holds: Callable[[], bool]) -> None:
        """Fails with what the job said."""
        wait_until(holds, lambda: f"{self.parts('ray::')}\n{self._job_log.read_text()}")

    def job_said(self, text: str) -> bool:
        return text in self._job_log.read_text()

    def num_steps(self) -> int:
        return len(self._records())

    def parts(self, what: str) -> dict[str, int]:
        """How many processes of a part each host runs."""
        found = {host.name: sum(what in line for line in host.processes()) for host in self._hosts.hosts}
        return {name: count for name, count in found.items() if count}

    def _records(self) -> list[dict[str, Any]]:
        path = self._folder / "metrics.jsonl"
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def _say(self, command: str) -> str:
        output = self._laptop.run(f"cd {ROOT} && {command}")
        self.told.append(f"$ {command}\n{output}")
        return output


def test_a_cluster_from_one_file_runs_a_job_whose_actors_come_and_go(hosts: Hosts, tmp_path: Path) -> None:
    trial = Trial(hosts, tmp_path / "job.log")
    trial.bring_up(tmp_path / "dashboard.log")
    trial.submit_job()
    assert trial.parts("ray::LearnerPart") == {"head": 1}
    assert trial.parts("ray::HubPart") == {"head": 1}
    trial.wait_until(lambda: trial.parts("ray::ActorPart") == {"worker-1": 1, "worker-2": 1})

    trial.scale(1)
    trial.wait_until(lambda: trial.job_said("actor-1 has left"))
    trial.wait_until(lambda: sum(trial.parts("ray::ActorPart").values()) == 1)
    trial.scale(2)
    trial.wait_until(lambda: sum(trial.parts("VLLM::EngineCore").values()) == 2)
    seen = trial.num_steps()
    trial.wait_until(lambda: trial.num_steps() > seen + 3)

    trial.stop_job()
    trial.check_run()
    trial.take_down()
    print("\n".join(trial.told))
