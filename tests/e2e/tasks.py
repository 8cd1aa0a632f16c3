"""Tasks whose rewards go wrong."""

from __future__ import annotations

import time

from tasks import Prompt
from tasks.examples.digits import Digits


class Raising(Digits):
    """Every fourth prompt has a reward that raises."""

    def reward(self, prompt: Prompt, completion: str) -> float:
        if int(prompt.messages[-1]["content"]) % 4 == 0:
            raise RuntimeError("the judge is on strike")
        return super().reward(prompt, completion)


class Hanging(Digits):
    """Every twentieth prompt has a reward that never comes."""

    def reward(self, prompt: Prompt, completion: str) -> float:
        if int(prompt.messages[-1]["content"]) % 20 == 0:
            time.sleep(3600)
        return super().reward(prompt, completion)
