"""A task in 20 lines: write a word backwards. Use it with `name = "tasks.examples.reverse:Reverse"`."""

from __future__ import annotations

import random

from tasks import Prompt, Reward


class Reverse:
    def __init__(self, letters: int = 3, size: int = 1000, split: str = "train") -> None:
        self.name = f"reverse {letters} letters"
        draw = random.Random(split)  # other words to evaluate on than to train on
        self._words = ["".join(draw.choices("abcdefgh", k=letters)) for _ in range(size)]

    def __len__(self) -> int:
        return len(self._words)

    def prompt(self, index: int) -> Prompt:
        word = self._words[index]
        return Prompt.ask(f"Write this word backwards: {word}", reference=word[::-1])

    def reward(self, prompt: Prompt, completion: str) -> Reward:
        given = completion.strip().rstrip(".")
        num_right = sum(a == b for a, b in zip(given, prompt.reference, strict=False))
        share = num_right / max(len(given), len(prompt.reference))
        return Reward(share, parts={"exact": float(given == prompt.reference)})
