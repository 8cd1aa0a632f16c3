"""Lean on this machine: `lake env lean` in the folder of a project that has Mathlib."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from tasks.errors import TaskError

LAKEFILES = ("lakefile.toml", "lakefile.lean")
KEEPER = Path(__file__).with_name("keeper.py")


class LeanProject:
    """Runs one program after the other; more at a time by `actors.reward_workers`."""

    def __init__(self, folder: str, timeout_s: float) -> None:
        """Raises TaskError when there is no lake, or no project in `folder`."""
        self._folder = Path(folder).expanduser()
        self._timeout_s = timeout_s
        self.name = f"lake env lean in {self._folder}"
        self._lake = shutil.which("lake")
        if self._lake is None:
            raise TaskError(
                "task.params.project asks for a local Lean, but there is no lake on the PATH: install it with elan, or "
                "set task.params.server to the address of a Kimina Lean server"
            )
        if not self._folder.is_absolute():
            raise TaskError(f'task.params.project is "{folder}"; expected an absolute folder, for actors run elsewhere')
        if not any((self._folder / name).is_file() for name in LAKEFILES):
            raise TaskError(
                f'task.params.project is "{folder}", in which there is no {" or ".join(LAKEFILES)}; expected a Lean '
                "project that requires Mathlib and is built"
            )

    def run(self, program: str) -> list[dict[str, Any]] | None:
        """Lean's messages about a program, None if it took too long. Raises RuntimeError when Lean itself fails."""
        assert self._lake is not None
        # Lean uses several cores.
        processor_s = math.ceil(self._timeout_s) * (os.cpu_count() or 1)
        keeper = [sys.executable, "-I", "-S", "-B", str(KEEPER), str(os.getpid()), str(processor_s)]
        process = subprocess.Popen(
            [*keeper, self._lake, "env", "lean", "--json"],
            cwd=self._folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,  # so that whoever kills our group leaves it the time to end what it keeps
        )
        try:
            out, err = process.communicate(program, timeout=self._timeout_s)
        except subprocess.TimeoutExpired:
            return None
        finally:
            process.terminate()
            process.communicate()
        messages = read_messages(out)
        if process.returncode != 0 and not any(message["severity"] == "error" for message in messages):
            raise RuntimeError(f"{self.name} ended with status {process.returncode}: {(err or out).strip()[-300:]}")
        return messages


def read_messages(out: str) -> list[dict[str, Any]]:
    """The messages among Lean's lines; others are of lake, or printed by the program."""
    messages = []
    for line in out.splitlines():
        with suppress(ValueError):
            message = json.loads(line)
            if isinstance(message, dict) and "severity" in message:
                messages.append(message)
    return messages
