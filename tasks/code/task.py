"""A task of writing Python: records, and the sandbox that judges programs."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from tasks.code.problems import Format
from tasks.sandbox import Limits, Sandbox, Suite, Verdict, WayName
from tasks.task import Prompt, Reward, check_index

# Compiled tests, which may be a megabyte each; the completions of a group are judged one after the other.
SUITES_KEPT = 32


class CodeTask:
    """One prompt for each of the chosen records. 1 for a program that passes all tests in time, else 0."""

    def __init__(
        self,
        name: str,
        form: Format,
        rows: Sequence[Any],
        indices: Sequence[int],
        limits: Limits,
        way: WayName,
        prompt_template: str = "{question}",
    ) -> None:
        self.name = name
        self._form, self._rows, self._indices, self._template = form, rows, indices, prompt_template
        self._limits, self._way = limits, way
        self._suites: OrderedDict[int, Suite] = OrderedDict()
        self._sandbox: Sandbox | None = None

    def __len__(self) -> int:
        return len(self._indices)

    def prompt(self, index: int) -> Prompt:
        """The reference is the record's number."""
        check_index(index, len(self), self.name)
        number = self._indices[index]
        return Prompt.ask(self._template.replace("{question}", self._form.question(self._rows[number])), number)

    def reward(self, prompt: Prompt, completion: str) -> Reward:
        """Raises SandboxError when the sandbox failed, and TaskError when the record's tests are no Python."""
        verdict = self.judge(prompt.reference, self._form.program(self._rows[prompt.reference], completion))
        return Reward(float(verdict.passed))

    def judge(self, number: int, program: str) -> Verdict:
        """The verdict on a program for record `number`."""
        if self._sandbox is None:
            # Not before: only processes that judge need one.
            self._sandbox = Sandbox(self._limits, self._way)
        return self._sandbox.check(program, self._suite(number))

    def solution(self, number: int) -> str:
        """The record's own program."""
        return self._form.solution(self._rows[number])

    def close(self) -> None:
        """Ends the sandbox, which otherwise ends with this process."""
        if self._sandbox is not None:
            self._sandbox.close()
            self._sandbox = None

    def _suite(self, number: int) -> Suite:
        if number not in self._suites:
            place = f"record {number + 1} of {self.name}"
            self._suites[number] = self._form.suite(self._rows[number], place)
            while len(self._suites) > SUITES_KEPT:
                self._suites.popitem(last=False)
        return self._suites[number]
