"""The program that Lean is given, and what its messages say about the proof in it."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tasks.lean.statement import Statement

# Those on which all of Mathlib rests.
STANDARD_AXIOMS = {"propext", "Classical.choice", "Quot.sound"}

Messages = Iterable[Mapping[str, Any]]


@dataclass(frozen=True)
class Program:
    """A statement with a proof, followed by the question on which axioms it rests.

    The theorem stands in a namespace whose name nobody knew when the proof was written, so that a proof cannot print
    the answer to that question itself, nor prove another theorem of the same name.
    """

    statement: Statement
    proof: str
    namespace: str = field(default_factory=lambda: f"Rapid_{secrets.token_hex(8)}")

    @property
    def text(self) -> str:
        claim = f"{self.statement.claim} := {self.proof}"
        name = f"{self.namespace}.{self.statement.name}"
        return (
            f"{self.statement.preamble}\n\nnamespace {self.namespace}\n\n{claim}\n\nend {self.namespace}\n\n"
            f"#print axioms {name}\n"
        )

    def is_proved(self, messages: Messages) -> bool:
        """Whether Lean found no error and no gap, and the theorem rests on the standard axioms alone."""
        texts = []
        for message in messages:
            if message.get("severity") == "error":
                return False
            texts.append(str(message.get("data", "")))
        if any("declaration uses" in text and "sorry" in text for text in texts):
            return False
        axioms = self._axioms(texts)
        return axioms is not None and axioms <= STANDARD_AXIOMS

    def _axioms(self, texts: list[str]) -> set[str] | None:
        """The axioms that Lean names. None when it does not answer, or more than once."""
        name = re.escape(f"{self.namespace}.{self.statement.name}")
        said = rf"['`‘]{name}['`’] (?:does not depend on any axioms|depends on axioms: \[(.*?)\])"
        answer = re.compile(said, re.DOTALL)
        found = [match for text in texts if (match := answer.search(text))]
        if len(found) != 1:
            return None
        return {axiom.strip() for axiom in (found[0][1] or "").split(",") if axiom.strip()}
