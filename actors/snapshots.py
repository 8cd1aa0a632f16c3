"""Files that hold one version of the weights, on this machine, between the wire and the engine.

A few files are used again and again: fresh ones would cost a page fault for every 4 KiB of every version.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from pathlib import Path

_PREFIX = "rapid-weights-"
ENGINE_PREFIX = "rapid-engine-"
"""Of the folder of an engine's sockets and temporary files, which is locked as long as its actor lives."""
_SHARED_MEMORY = Path("/dev/shm")
# One file being loaded by the engine, one being filled with the next version.
_NUM_FILES = 2
# File systems take 255 bytes.
_NAME_LENGTH = 100


class SnapshotStore:
    """Two files of one actor, in shared memory if they fit, else in the folder for temporary files.

    The end of `name` is part of theirs. Each file is locked as long as its actor lives, so that those of a killed actor
    are known and removed.
    """

    def __init__(self, name: str, folder: Path | None = None) -> None:
        self._name, self._folder = name, folder
        self._free: list[Path] = []
        self._locks: dict[Path, int] = {}

    def take(self, num_bytes: int) -> Path:
        """A file of this size with arbitrary contents. Raises OSError if there is no room for it."""
        if not self._locks:
            self._open_files(num_bytes)
        path = self._free.pop()
        try:
            os.posix_fallocate(self._locks[path], 0, max(num_bytes, 1))
            os.ftruncate(self._locks[path], num_bytes)
        except OSError as error:
            self._free.append(path)
            raise OSError(
                error.errno,
                f"no room for {num_bytes} bytes of weights in {path.parent}: {error.strerror}. Expected "
                f"{_NUM_FILES * num_bytes} free bytes there; set TMPDIR to a larger folder",
            ) from error
        return path

    def give_back(self, path: Path) -> None:
        """The file may be overwritten."""
        if path in self._locks and path not in self._free:
            self._free.append(path)

    def close(self) -> None:
        """Remove the files. Idempotent."""
        for path, descriptor in self._locks.items():
            path.unlink(missing_ok=True)
            os.close(descriptor)
        self._locks, self._free = {}, []

    def _open_files(self, num_bytes: int) -> None:
        folder = self._folder or choose_folder(_NUM_FILES * num_bytes)
        remove_orphans(folder)
        safe_name = "".join(letter if letter.isalnum() else "_" for letter in self._name)[-_NAME_LENGTH:]
        for _ in range(_NUM_FILES):
            descriptor, path = tempfile.mkstemp(prefix=f"{_PREFIX}{safe_name}-", dir=folder)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            self._locks[Path(path)] = descriptor
            self._free.append(Path(path))


def choose_folder(num_bytes: int) -> Path:
    """Shared memory if this many bytes fit with room to spare, else the folder for temporary files."""
    if _SHARED_MEMORY.is_dir() and os.access(_SHARED_MEMORY, os.W_OK):
        free = shutil.disk_usage(_SHARED_MEMORY).free
        if free > 1.2 * num_bytes:
            return _SHARED_MEMORY
    return Path(tempfile.gettempdir())


def remove_orphans(*folders: Path) -> None:
    """Remove the files of actors that died without closing them, and the folders of their engines: nobody holds the
    lock. Without `folders`, in the places where an actor of this machine puts them.
    """
    for folder in folders or (_SHARED_MEMORY, Path(tempfile.gettempdir())):
        for path in [*folder.glob(f"{_PREFIX}*"), *folder.glob(f"{ENGINE_PREFIX}*")]:
            _remove_unlocked(path)


def _remove_unlocked(path: Path) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return  # gone by itself, or another user's
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    except OSError:
        return  # in use
    finally:
        os.close(descriptor)
