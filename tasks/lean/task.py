"""The task: statements from records, proofs from completions, verdicts from Lean."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, Protocol

from pydantic import Field, model_validator

from tasks.config import LEAN_TIMEOUT_S, Section, TaskConfig
from tasks.errors import TaskError
from tasks.huggingface import choose_rows
from tasks.lean.program import Program
from tasks.lean.project import LeanProject
from tasks.lean.proof import find_proof
from tasks.lean.server import LeanServer
from tasks.lean.statement import PREAMBLE, Statement, read_statement
from tasks.params import read_params
from tasks.records import ChosenRows, read_text
from tasks.task import Prompt

PROBE = Statement(PREAMBLE, "rapid_probe", "theorem rapid_probe : 1 + 1 = 2")


class LeanParams(Section):
    """`[task.params]` of minif2f: one of project and server."""

    project: str | None = None
    """Absolute folder of a Lean project with Mathlib, in which `lake env lean` runs."""
    server: str | None = None
    """Address of a Kimina Lean server, such as "http://127.0.0.1:8000". Its key is read from LEAN_SERVER_API_KEY."""
    timeout_s: float = Field(LEAN_TIMEOUT_S, ge=1)
    """Seconds for one proof; one that takes longer is none. Must stay below actors.reward_timeout_s."""

    @model_validator(mode="after")
    def check_one(self) -> LeanParams:
        """Raises ValueError unless exactly one way to Lean is named."""
        if (self.project is None) == (self.server is None):
            raise ValueError(
                "expected either project, the folder of a Lean project with Mathlib, or server, the address of a "
                f"Kimina Lean server; got {'both' if self.project else 'neither'}"
            )
        return self


class Lean(Protocol):
    """A way to Lean."""

    name: str

    def run(self, program: str) -> list[dict[str, Any]] | None:
        """Lean's messages, None if it took too long. Raises RuntimeError when it cannot be asked."""
        ...


class LeanTask:
    """One prompt for each statement; reward 1 for a proof that Lean accepts."""

    def __init__(self, config: TaskConfig, chosen: ChosenRows, lean: Lean) -> None:
        self.name = chosen.name
        self._config, self._chosen, self._lean = config, chosen, lean

    def __len__(self) -> int:
        return len(self._chosen)

    def statement(self, index: int) -> Statement:
        row, place = self._chosen.read(index)
        return read_statement(read_text(row, self._config.question_field, "question_field", place), place)

    def prompt(self, index: int) -> Prompt:
        statement = self.statement(index)
        return Prompt.ask(self._config.prompt_template.replace("{question}", statement.text), statement)

    def difficulty(self, index: int) -> str | None:
        return self.statement(index).source

    def reward(self, prompt: Prompt, completion: str) -> float | Awaitable[float]:
        """A server is asked about a whole group at once; a Lean of our own checks one proof after the other."""
        proof = find_proof(prompt.reference, completion)
        if proof is None:
            return 0.0
        if isinstance(self._lean, LeanServer):
            return asyncio.to_thread(check, self._lean, prompt.reference, proof)
        return check(self._lean, prompt.reference, proof)

    def check(self) -> None:
        """Raises TaskError when a record holds no statement."""
        for index in range(self._chosen.num_checked):
            self.statement(index)


def check(lean: Lean, statement: Statement, proof: str) -> float:
    """1 if Lean accepts the proof, 0 if it does not or takes too long. Raises RuntimeError without a verdict."""
    program = Program(statement, proof)
    messages = lean.run(program.text)
    return float(messages is not None and program.is_proved(messages))


def build(config: TaskConfig, split: str) -> LeanTask:
    """The task of `split`. Raises TaskError without a Lean that works."""
    lean = check_lean(config)
    task = LeanTask(config, choose_rows(config, split), lean)
    task.check()
    return task


def check_lean(config: TaskConfig) -> Lean:
    """The way to Lean, after it has checked one proof. Raises TaskError when it is missing, or cannot."""
    params = read_params(config, LeanParams)
    lean: Lean
    if params.project is not None:
        lean = LeanProject(params.project, params.timeout_s)
    else:
        assert params.server is not None
        if not params.server.startswith(("http://", "https://")):
            raise TaskError(f'task.params.server is "{params.server}"; expected http://HOST:PORT')
        lean = LeanServer(params.server, params.timeout_s)
    try:
        is_working = check(lean, PROBE, "by norm_num") == 1.0
    except RuntimeError as error:
        raise TaskError(f'task.name is "{config.name}", whose checker does not work: {error}') from None
    if not is_working:
        raise TaskError(
            f"{lean.name} does not accept a proof of 1 + 1 = 2 under `import Mathlib` within {params.timeout_s:g} s; "
            "expected a Lean 4 with Mathlib built (`lake exe cache get`), or raise task.params.timeout_s"
        )
    return lean
