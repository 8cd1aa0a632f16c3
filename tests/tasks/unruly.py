"""A task whose reward does what the completion says, to see what the runner makes of it."""

from __future__ import annotations

import asyncio
import ctypes
import os
import re
import subprocess
import sys
from pathlib import Path

from tasks import Prompt, Reward


class Unruly:
    def __init__(self, folder: str = "") -> None:
        self.name = "unruly"
        self._folder = Path(folder)

    def __len__(self) -> int:
        return 4

    def prompt(self, index: int) -> Prompt:
        if index == 3:
            raise LookupError("no third question")
        return Prompt.ask(f"question {index}", reference=index)

    def reward(self, prompt: Prompt, completion: str) -> object:
        action, _, argument = completion.partition(" ")
        return getattr(self, action)(prompt, argument)

    def give(self, prompt: Prompt, argument: str) -> float:
        return float(argument)

    def index(self, prompt: Prompt, argument: str) -> int:
        return int(prompt.reference)

    def parts(self, prompt: Prompt, argument: str) -> Reward:
        return Reward(1.5, {"form": 0.5, "content": 1.0})

    def wrong_part(self, prompt: Prompt, argument: str) -> Reward:
        return Reward(1.0, {"form": float("inf")})

    def text(self, prompt: Prompt, argument: str) -> str:
        return "1.0"

    def nothing(self, prompt: Prompt, argument: str) -> None:
        return None

    def fail(self, prompt: Prompt, argument: str) -> float:
        raise ValueError(argument)

    def exit(self, prompt: Prompt, argument: str) -> float:
        sys.exit(3)

    def end(self, prompt: Prompt, argument: str) -> float:
        os._exit(7)

    def crash(self, prompt: Prompt, argument: str) -> float:
        return float(ctypes.string_at(0)[0])

    def hang(self, prompt: Prompt, argument: str) -> float:
        """Catastrophic backtracking: one call in C that lets no other thread of the process run."""
        (self._folder / "hanging").write_text(str(os.getpid()))
        re.match(r"(a+)+$", "a" * 64 + "b")
        return 0.0

    def hang_with_child(self, prompt: Prompt, argument: str) -> float:
        child = subprocess.Popen(["sleep", "600"])
        (self._folder / "child").write_text(str(child.pid))
        child.wait()
        return 0.0

    def pid(self, prompt: Prompt, argument: str) -> int:
        return os.getpid()

    def imported(self, prompt: Prompt, argument: str) -> bool:
        return argument in sys.modules


class Meeting:
    """Each of its rewards waits until as many as the completion says are under way."""

    def __init__(self) -> None:
        self.name = "meeting"
        self._present: list[asyncio.Event] = []

    def __len__(self) -> int:
        return 1

    def prompt(self, index: int) -> Prompt:
        return Prompt.ask("who is there?")

    async def reward(self, prompt: Prompt, completion: str) -> float:
        here = asyncio.Event()
        self._present.append(here)
        if len(self._present) == int(completion):
            for event in self._present:
                event.set()
        await here.wait()
        return float(len(self._present))


class Failing:
    """Can be built once, in the process that checks the configuration, and then no more."""

    def __init__(self, file: str) -> None:
        raise OSError(f"{file} is gone")


finished = Unruly()
no_task = object()
