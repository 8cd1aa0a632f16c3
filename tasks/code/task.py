"""A task of writing Python: records, and the sandbox that judges programs."""

from __future__ import annotations

from collections import OrderedDict

from tasks.code.problems import Format
from tasks.records import ChosenRows
from tasks.sandbox import Limits, Sandbox, Suite, Verdict, WayName
from tasks.task import Prompt, Reward

# Compiled tests, which may be a megabyte each; the completions of a group are judged one after the other.
SUITES_KEPT = 32


class CodeTask:
    """One prompt for each of the chosen records. 1 for a program that passes all tests in time, else 0."""

    def __init__(
        self,
        name: str,
        form: Format,
        chosen: ChosenRows,
        limits: Limits,
        way: WayName,
        prompt_template: str = "{question}",
    ) -> None:
        self.name = name
        self._form, self._chosen, self._template = form, chosen, prompt_template
        self._limits, self._way = limits, way
        self._suites: OrderedDict[int, Suite] = OrderedDict()
        self._sandbox: Sandbox | None = None

    def __len__(self) -> int:
        return len(self._chosen)

    def prompt(self, index: int) -> Prompt:
        """The reference is the prompt's own index."""
        row, place = self._chosen.read(index)
        self._form.check(row, place)
        return Prompt.ask(self._template.replace("{question}", self._form.question(row)), index)

    def reward(self, prompt: Prompt, completion: str) -> Reward:
        """Raises SandboxError when the sandbox failed, and TaskError when the record's tests are no Python."""
        index = prompt.reference
        row, _ = self._chosen.read(index)
        program = self._form.program(row, completion, self.suite(index).names)
        return Reward(float(self.judge(index, program).passed))

    def judge(self, index: int, program: str) -> Verdict:
        """The verdict on a program for prompt `index`."""
        if self._sandbox is None:
            # Not before: only processes that judge need one.
            self._sandbox = Sandbox(self._limits, self._way)
        return self._sandbox.check(program, self.suite(index))

    def solution(self, index: int) -> str:
        """The record's own program."""
        return self._form.solution(self._chosen.read(index)[0])

    def check(self) -> None:
        """Raises TaskError when a record's tests cannot be compiled, or do not test its own program."""
        for index in range(self._chosen.num_checked):
            self._form.suite(*self._chosen.read(index))

    def close(self) -> None:
        """Ends the sandbox, which otherwise ends with this process."""
        if self._sandbox is not None:
            self._sandbox.close()
            self._sandbox = None

    def suite(self, index: int) -> Suite:
        """The tests of prompt `index`. Raises TaskError when they cannot be compiled."""
        if index not in self._suites:
            self._suites[index] = self._form.suite(*self._chosen.read(index))
            while len(self._suites) > SUITES_KEPT:
                self._suites.popitem(last=False)
        return self._suites[index]
