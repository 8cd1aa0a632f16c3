"""A Ray cluster for tests: a head node with ports and a temporary folder of its own."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import ray
from ray.autoscaler._private.fake_multi_node.node_provider import (
    FAKE_HEAD_NODE_ID,
    FAKE_HEAD_NODE_TYPE,
    FakeMultiNodeProvider,
)

from tests.e2e.conftest import LIMIT_S, ROOT, command_line
from tests.ports import quiet_port

_BIN = Path(sys.executable).parent


class Cluster:
    """A head node, and whatever it starts; close it.

    Args:
        options: more for `ray start --head`.
        autoscaling: lets Ray's own autoscaler add nodes on this machine: a configuration without provider and head.
    """

    def __init__(self, *options: str, autoscaling: dict[str, Any] | None = None) -> None:
        # Short, since Ray puts sockets into it.
        self.folder = tempfile.mkdtemp(prefix="ray-test-", dir="/tmp")
        # Ray takes loopback for another machine's, and dials the node's own address in its place.
        host = ray.util.get_node_ip_address()
        self.address, self.dashboard = f"{host}:{quiet_port()}", f"127.0.0.1:{quiet_port()}"
        self.environment = {**os.environ, "PATH": f"{_BIN}:{os.environ['PATH']}", "RAY_USAGE_STATS_ENABLED": "0"}
        self.token = uuid.uuid4().hex
        self.environment |= {"RAY_worker_niceness": "0", "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token}
        if autoscaling:
            options = (*options, "--autoscaling-config", self._autoscale(autoscaling))
        self.environment.pop("RAY_ADDRESS", None)
        command = [_BIN / "ray", "start", "--head", "--block", "--port", self.address.split(":")[1]]
        command += ["--dashboard-host", "127.0.0.1", "--dashboard-port", self.dashboard.split(":")[1]]
        # By default one port for all of a machine's nodes, whose agents are left without where another has it.
        command += ["--dashboard-agent-listen-port", str(quiet_port())]
        command += ["--temp-dir", self.folder, "--disable-usage-stats", *options]
        self.log = Path(self.folder, "start.log")
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                command, env=self.environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )

    def _autoscale(self, config: dict[str, Any]) -> str:
        """Write the configuration and say what the head must be told; returns the file."""
        # Ray's AutoscalingCluster does the same, but begins with `ray stop`, which ends every Ray on the machine.
        self.environment |= {
            "RAY_enable_autoscaler_v2": "1",
            "RAY_FAKE_CLUSTER": "1",
            "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID,
            "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID,
            "AUTOSCALER_UPDATE_INTERVAL_S": "1",
            "AUTOSCALER_METRIC_PORT": str(quiet_port()),
        }
        provider = {
            "type": "external",
            "module": f"{FakeMultiNodeProvider.__module__}.{FakeMultiNodeProvider.__qualname__}",
            "gcs_address": self.address,
            "head_node_id": FAKE_HEAD_NODE_ID,
            "launch_multiple": True,
            "disable_node_updaters": True,
        }
        head = {"resources": {"CPU": 2}, "node_config": {}, "max_workers": 0}
        types = {FAKE_HEAD_NODE_TYPE: head, **config["available_node_types"]}
        # Nothing is set up; an external provider has no defaults, and Ray misses the keys.
        steps = ("setup", "head_setup", "worker_setup", "initialization", "head_start_ray", "worker_start_ray")
        nothing = {**{f"{step}_commands": [] for step in steps}, "file_mounts": {}, "cluster_synced_files": []}
        names = {"cluster_name": "test", "head_node_type": FAKE_HEAD_NODE_TYPE}
        path = Path(self.folder, "autoscaling.json")
        path.write_text(json.dumps({**names, **nothing, **config, "provider": provider, "available_node_types": types}))
        return str(path)

    def wait(self) -> None:
        """Until the head has joined the cluster as a node, after which Ray says that it has started."""

        def has_started() -> bool:
            assert self.process.poll() is None, self.log.read_text()
            return "Ray runtime started" in self.log.read_text()

        self.wait_until(has_started, "head")

    def ray(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A command of Ray's that ends by itself."""
        return subprocess.run(
            [_BIN / "ray", *arguments],
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )

    def processes(self) -> list[psutil.Process]:
        """All that live, but for the one that started them."""
        if self.process.poll() is not None:
            return []
        children = psutil.Process(self.process.pid).children(recursive=True)
        return [child for child in children if command_line(child)]

    def parts(self) -> list[str]:
        """Rapid's processes on it."""
        lines = [" ".join(command_line(child)) for child in self.processes()]
        return [line for line in lines if "Part" in line or "VLLM" in line]

    def nodes(self) -> int:
        """Nodes that live, the head among them: each has one raylet."""
        programs = [command_line(child)[:1] for child in self.processes()]
        return sum(Path(*program).name == "raylet" for program in programs)

    def wait_until(self, condition: Callable[[], bool], what: str, timeout_s: float = 240.0) -> None:
        """Poll; fails with what Ray says of the cluster when the time is over before."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, f"no {what}: {self.ray('status', '--address', self.address).stdout}"
            time.sleep(0.2)

    def close(self) -> None:
        """End all of it."""
        children = self.processes()
        self.process.send_signal(signal.SIGTERM)
        psutil.wait_procs(children, 10)
        for process in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait(30)
        shutil.rmtree(self.folder, ignore_errors=True)
