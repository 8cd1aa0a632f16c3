"""Runs `head` and `actor` of docker-compose.yml without Docker, in the root that deploy.docker.check_build has left.

    python -m deploy.docker.check_run --root /var/tmp/rapid-image [--actors 2] [-- options of rapid train]

Each container is one root shown in namespaces of its own (network, mounts, processes, host name), as the image's user,
with the environment of the image and of the compose file. They meet on a bridge; the last actor joins late. Checked:
the run ends well, every container counts as healthy, every part serves its metrics at the address that it announces.
What this does not show: Docker's own isolation and limits, Grafana, Prometheus. Wants root and iproute2.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.request import urlopen

from deploy.docker.check_build import DOCKERFILE, built, say
from deploy.docker.dockerfile import read_dockerfile
from deploy.docker.root import Root

BRIDGE, NETWORK = "rapid-br", "10.77.0"
LIMIT_S = 300.0
ALSO = """
hostname {name}
touch "$root/etc/hosts"
mount --bind {hosts} "$root/etc/hosts"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
"""


@dataclass
class Container:
    """One service's container: a network namespace and the process in it."""

    name: str
    address: str
    root: Root
    hosts: Path
    process: subprocess.Popen[bytes] | None = None

    def create(self) -> None:
        """Its network, with a leg on the bridge."""
        space, leg = f"rapid-{self.name}", f"rv-{self.name}"
        ip("netns", "add", space)
        ip("link", "add", leg, "type", "veth", "peer", "name", "eth0", "netns", space)
        ip("link", "set", leg, "master", BRIDGE, "up")
        ip("-n", space, "addr", "add", f"{self.address}/24", "dev", "eth0")
        ip("-n", space, "link", "set", "eth0", "up")
        ip("-n", space, "link", "set", "lo", "up")

    def start(self, command: str, environment: dict[str, str]) -> None:
        """Run the service's command, as its container would."""
        also = ALSO.format(name=self.name, hosts=self.hosts)
        entered = self.root.entered(command)
        entered.insert(entered.index("--mount"), "--uts")
        self.process = subprocess.Popen(
            ["ip", "netns", "exec", f"rapid-{self.name}", *entered],
            env={**self.root.variables(also), **environment},
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )

    def is_healthy(self, part: str) -> bool:
        """What the health check of the compose file says."""
        command = [
            "ip",
            "netns",
            "exec",
            f"rapid-{self.name}",
            "chroot",
            self.root.path,
            "/usr/local/bin/rapid-healthy",
        ]
        environment = {"PATH": self.root.environment["PATH"]}
        return subprocess.run([*command, part], env=environment, stdout=subprocess.DEVNULL).returncode == 0

    def remove(self) -> None:
        """End its processes, first kindly, and its network."""
        if self.process is not None and self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
                os.killpg(self.process.pid, signal.SIGTERM)
                self.process.wait(10)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        ip("netns", "del", f"rapid-{self.name}", check=False)


@dataclass
class Check:
    """What was seen while the run went on."""

    metrics: dict[str, str] = field(default_factory=dict)
    """Address of each part that answered a scrape."""
    healthy: set[str] = field(default_factory=set)

    def look(self, containers: list[Container], run: Path) -> None:
        """Scrape what the run announces, and ask the containers for their health."""
        for path in sorted((run / "exporters").glob("*.json")):
            with contextlib.suppress(OSError, ValueError, LookupError):
                (target,) = json.loads(path.read_text())[0]["targets"]
                with urlopen(f"http://{target}/metrics", timeout=2) as answer:
                    if b"rapid_" in answer.read():
                        self.metrics[path.stem] = target
        for container in containers:
            if container.process is not None and container.is_healthy("head" if container.name == "head" else "node"):
                self.healthy.add(container.name)

    def faults(self, containers: list[Container], actors: int) -> list[str]:
        """What was not seen."""
        ill = [each.name for each in containers if each.name not in self.healthy]
        parts = {"hub", "learner-0", "launcher", *(f"actor-{index}" for index in range(actors))}
        return [
            *(f"{name} was never healthy" for name in ill),
            *(f"the metrics of {part} could not be read" for part in sorted(parts - set(self.metrics))),
        ]


def ip(*arguments: str, check: bool = True) -> None:
    """The command of iproute2."""
    subprocess.run(["ip", *arguments], check=check)


@contextlib.contextmanager
def containers(root: Root, actors: int) -> Iterator[list[Container]]:
    """The head and the actors on one bridge, not started; all is taken away at the end."""
    with tempfile.TemporaryDirectory() as folder:
        hosts = Path(folder, "hosts")
        names = {"head": f"{NETWORK}.1", **{f"actor-{index + 1}": f"{NETWORK}.{index + 11}" for index in range(actors)}}
        hosts.write_text("127.0.0.1 localhost\n" + "".join(f"{address} {name}\n" for name, address in names.items()))
        made = [Container(name, address, root, hosts) for name, address in names.items()]
        try:
            ip("link", "add", BRIDGE, "type", "bridge")
            ip("addr", "add", f"{NETWORK}.254/24", "dev", BRIDGE)
            ip("link", "set", BRIDGE, "up")
            for container in made:
                container.create()
            yield made
        finally:
            for container in made:
                container.remove()
            ip("link", "del", BRIDGE, check=False)


def check(root: Root, actors: int, options: list[str]) -> list[str]:
    """One run, with the last actor joining late; what went wrong."""
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": uuid.uuid4().hex}
    run, seen = f"check-{uuid.uuid4().hex[:8]}", Check()
    with containers(root, actors) as made:
        head, *nodes = made
        head.start(f"rapid-head recipes/tiny.toml {' '.join(options)}", {**token, "RAPID_RUN": run})
        for node in nodes[:-1] or nodes:
            node.start("rapid-actor", {**token, "RAPID_HEAD": "head"})
        begin_s = time.monotonic()
        assert head.process is not None
        while head.process.poll() is None and time.monotonic() - begin_s < LIMIT_S:
            time.sleep(1)
            seen.look(made, root.path / "runs" / run)
            if nodes[-1].process is None and "actor-0" in seen.metrics:
                say(f"{nodes[-1].name} joins")
                nodes[-1].start("rapid-actor", {**token, "RAPID_HEAD": "head"})
        say(f"metrics were read at {seen.metrics}")
        status = head.process.poll()
        ended = [] if status == 0 else [f"the head ended with {status}, expected 0 within {LIMIT_S:.0f} s"]
        return [*ended, *seen.faults(made, actors)]


def main() -> int:
    """Exit status 0 if all was as it should be."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--root", type=Path, required=True, help="the folder of check_build")
    parser.add_argument("--actors", type=int, default=2)
    parser.add_argument("options", nargs="*", help="options of rapid train")
    options = parser.parse_args()
    found = check(built(read_dockerfile(DOCKERFILE), options.root), options.actors, options.options)
    for fault in found:
        print(f"check_run: {fault}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
