"""Several hosts on one machine: each has a network, a process table, a name, shared memory and a home of its own.

    laptop, head, worker-1, worker-2 ── veth ── switch (a bridge in a network namespace)

A host is an sshd in namespaces that end with it, so that nothing outlives the test. The disk is shared, apart from
Ray's temporary folder, which holds the home folder, too.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

NEEDS = ("ip", "unshare", "nsenter", "sshd", "ssh", "ssh-keygen", "rsync")
NETWORK = "10.213.77"
_PRIVATE = Path("/tmp/ray")
_HOME = _PRIVATE / "home"
_LIMIT_S = 600.0


def missing() -> list[str]:
    """What this machine lacks; empty if hosts can be made here."""
    lacks = [name for name in NEEDS if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None]
    return lacks if os.geteuid() == 0 else [*lacks, "root"]


@dataclass
class Host:
    """One of them."""

    name: str
    address: str
    namespace: str
    sshd: psutil.Process | None = None
    tasks: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def enter(self, command: str) -> list[str]:
        """The command line that runs a shell command on this host, as its user would after logging in."""
        assert self.sshd is not None
        spaces = ["nsenter", "-t", str(self.sshd.pid), "--mount", "--uts", "--ipc", "--net", "--pid"]
        return [*spaces, "env", "-i", f"HOME={_HOME}", "TERM=dumb", "bash", "--login", "-i", "-c", command]

    def run(self, command: str, timeout_s: float = _LIMIT_S) -> str:
        """What a shell command says. Raises AssertionError with that if it fails."""
        done = subprocess.run(
            self.enter(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        assert done.returncode == 0, f"{self.name}: {command}\nended with {done.returncode}:\n{done.stdout}"
        return done.stdout

    def begin(self, command: str, log: Path) -> subprocess.Popen[bytes]:
        """Start a shell command that goes on by itself."""
        with log.open("wb") as output:
            task = subprocess.Popen(
                self.enter(command), stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
            )
        self.tasks.append(task)
        return task

    def processes(self) -> list[str]:
        """Command lines of all that runs here besides sshd."""
        assert self.sshd is not None
        own = os.readlink(f"/proc/{self.sshd.pid}/ns/pid")
        found = []
        for process in psutil.process_iter():
            try:
                if os.readlink(f"/proc/{process.pid}/ns/pid") == own and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(" ".join(process.cmdline()))
            except (OSError, psutil.Error):
                continue
        return [line for line in found if line and "sshd" not in line]


class Hosts:
    """Use it as a context."""

    def __init__(self, names: Sequence[str]) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="rapid-hosts-", dir="/var/tmp"))
        self._switch = f"rapid-{os.getpid()}-switch"
        self._made: list[str] = []
        self.hosts = [
            Host(name, f"{NETWORK}.{index}", f"rapid-{os.getpid()}-{name}") for index, name in enumerate(names, 2)
        ]

    def __getitem__(self, name: str) -> Host:
        return next(host for host in self.hosts if host.name == name)

    @property
    def key(self) -> Path:
        """The private key that opens all hosts."""
        return self.folder / "key"

    def __enter__(self) -> Hosts:
        try:
            _PRIVATE.mkdir(exist_ok=True)
            for key in (self.key, self.folder / "host_key"):
                _do("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key))
            (self.folder / "passwd").write_text(
                f"root:x:0:0:root:{_HOME}:/bin/bash\nsshd:x:100:65534::/run/sshd:/bin/false\n"
            )
            self._add_namespace(self._switch)
            _do("ip", "-n", self._switch, "link", "add", "bridge", "type", "bridge")
            _do("ip", "-n", self._switch, "link", "set", "bridge", "up")
            for host in self.hosts:
                self._connect(host)
                self._boot(host)
        except BaseException:  # Ctrl-C, too: no namespace may be left.
            self.__exit__()
            raise
        return self

    def _add_namespace(self, name: str) -> None:
        _do("ip", "netns", "add", name)
        self._made.append(name)

    def _connect(self, host: Host) -> None:
        self._add_namespace(host.namespace)
        port = f"to-{host.name}"
        _do(*f"ip -n {self._switch} link add {port} type veth peer name eth0 netns {host.namespace}".split())
        _do(*f"ip -n {self._switch} link set {port} master bridge up".split())
        _do(*f"ip -n {host.namespace} addr add {host.address}/24 dev eth0".split())
        _do(*f"ip -n {host.namespace} link set eth0 up".split())
        _do(*f"ip -n {host.namespace} link set lo up".split())
        # Leads nowhere, but Ray finds its own address by it.
        _do(*f"ip -n {host.namespace} route add default via {NETWORK}.1".split())

    def _boot(self, host: Host) -> None:
        config = self.folder / f"{host.name}.sshd"
        config.write_text(
            f"ListenAddress {host.address}\nHostKey {self.folder / 'host_key'}\nPidFile none\nUsePAM no\n"
            f"AuthorizedKeysFile {self.key}.pub\nStrictModes no\nPermitRootLogin prohibit-password\n"
            f"PasswordAuthentication no\nMaxStartups 100\nMaxSessions 100\n"
        )
        login = f"export PATH={Path(sys.executable).parent}:$PATH\\n"
        script = [
            f"mount -t tmpfs tmpfs {_PRIVATE}",
            "mount -t tmpfs -o size=1g tmpfs /dev/shm",
            f"hostname {host.name}",
            f"mkdir -p /run/sshd {_HOME}",
            # ssh takes the home folder from there, whatever HOME says.
            f"mount --bind {self.folder / 'passwd'} /etc/passwd",
            f"printf '{login}' > {_HOME}/.bashrc",
            f"echo '. ~/.bashrc' > {_HOME}/.bash_profile",
            f"exec $(command -v sshd || echo /usr/sbin/sshd) -D -f {config}",
        ]
        spaces = ["unshare", "--mount", "--uts", "--ipc", "--pid", "--fork", "--mount-proc", "--kill-child"]
        task = subprocess.Popen(["ip", "netns", "exec", host.namespace, *spaces, "sh", "-c", " && ".join(script)])
        host.tasks.append(task)
        host.sshd = _wait_for_sshd(task)

    def __exit__(self, *_: object) -> None:
        for host in self.hosts:
            for task in reversed(host.tasks):
                task.kill()  # `unshare --kill-child` takes the whole process table of the host along
                task.wait()
        for name in reversed(self._made):
            _do("ip", "netns", "delete", name)
        shutil.rmtree(self.folder, ignore_errors=True)
        if _PRIVATE.is_dir() and not any(_PRIVATE.iterdir()):
            _PRIVATE.rmdir()


def _wait_for_sshd(task: subprocess.Popen[bytes]) -> psutil.Process:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and task.poll() is None:
        for process in psutil.Process(task.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):  # such as a `mount` that is done
                if process.name() == "sshd":
                    return process
        time.sleep(0.05)
    raise RuntimeError(f"sshd did not start: {task.args}")


def _do(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
