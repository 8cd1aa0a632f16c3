"""A folder with a Debian in it, and how a command runs inside as it would in a container."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

# How this machine reaches its package sources; copied into the root.
HOST_FILES = ("/etc/resolv.conf", "/etc/pip.conf", "/root/.config/pip/pip.conf", "/etc/ssl/certs/ca-certificates.crt")
START_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ENTER = """
set -e
mount --make-rprivate /
mount -t proc proc "$1/proc"
mount --bind /sys "$1/sys"
mount -t tmpfs -o size=50% tmpfs "$1/dev"
mkdir "$1/dev/shm"
chmod 1777 "$1/dev/shm"
for each in null zero full random urandom tty; do touch "$1/dev/$each"; mount --bind "/dev/$each" "$1/dev/$each"; done
ln -s /proc/self/fd "$1/dev/fd"
for each in $BINDS; do mkdir -p "$1$each"; mount --bind "$each" "$1$each"; done
root=$1
shift
eval "$ALSO"
exec /usr/sbin/chroot "$root" "$@"
"""


class StepError(Exception):
    """A step of the build failed."""


@dataclass
class Root:
    """One stage's root folder and what applies in it. `binds` are folders of this machine to show inside."""

    path: Path
    arguments: dict[str, str]
    environment: dict[str, str] = field(default_factory=lambda: {"PATH": START_PATH})
    folder: str = "/"
    user: str = "0:0"
    binds: list[str] = field(default_factory=list)

    def run(self, command: str) -> None:
        """A shell command inside, with this machine's package sources. Raises StepError."""
        reach_packages(self.path)
        host = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
        done = subprocess.run(self.entered(command), env={**host, **self.variables()}, stdin=subprocess.DEVNULL)
        if done.returncode != 0:
            raise StepError(f"status {done.returncode}: {command}")

    def entered(self, command: str) -> list[str]:
        """What runs a shell command inside, in mount and process namespaces of its own. Wants `variables`."""
        inside = f"cd {shlex.quote(self.folder)} && {command}"
        uid, gid = self.user.split(":")
        # setpriv is of util-linux, hence in every Debian; it needs no entry in /etc/passwd.
        chroot = ["/usr/bin/setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups", "/bin/sh", "-c", inside]
        unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
        return [*unshare, "/bin/sh", "-c", ENTER, "enter", str(self.path), *chroot]

    def variables(self, also: str = "") -> dict[str, str]:
        """The environment inside; `also` is a line of shell that is read before the root is entered."""
        home = "/root" if self.user.startswith("0:") else "/home/rapid"
        return {**self.arguments, **self.environment, "HOME": home, "BINDS": " ".join(self.binds), "ALSO": also}

    def inside(self, path: str) -> Path:
        """A path of the image as one of this machine."""
        return self.path / str(PurePosixPath(self.folder) / path).lstrip("/")


def reach_packages(folder: Path) -> None:
    """Give a root this machine's ways to its package sources, some of which installing ca-certificates takes away."""
    for path in HOST_FILES:
        if Path(path).is_file():
            target = folder / path.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
