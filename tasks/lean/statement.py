"""A theorem without its proof, as data sets hold it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tasks.errors import TaskError
from tasks.lean.comments import strip_comments

# What statements without a preamble of their own are read under. Without a limit of heartbeats the limit is the
# checker's time.
PREAMBLE = "import Mathlib\n\nset_option maxHeartbeats 0\n\nopen BigOperators Real Nat Topology Rat"
THEOREM = re.compile(r"^[ \t]*(?:theorem|lemma)[ \t]+([^\s({\[:]+)", re.MULTILINE)
# "by sorry", "sorry", "by" or nothing: what stands where the proof belongs.
GAP = re.compile(r":=\s*(?:by\b\s*)?(?:sorry\s*)?\Z")
SOURCE = re.compile(r"imo|aime|amc\d*|mathd_[a-z]+|[a-z]+")


@dataclass(frozen=True)
class Statement:
    """One theorem."""

    preamble: str
    """Imports, options and open namespaces."""
    name: str
    """The theorem's name."""
    claim: str
    """From the word "theorem" to the proposition, without ":=" and what follows."""

    @property
    def text(self) -> str:
        """The whole statement as it is shown to the model, open for a proof."""
        return f"{self.preamble}\n\n{self.claim} := by"

    @property
    def source(self) -> str:
        """Where the problem is from, by the convention of miniF2F's names: "aime_1983_p1" is of "aime"."""
        match = SOURCE.match(self.name)
        return match[0] if match else self.name


def read_statement(source: str, place: str) -> Statement:
    """The theorem in `source`. Raises TaskError unless there is exactly one, with its proof left out."""
    text = (strip_comments(source) or "").rstrip()
    found = list(THEOREM.finditer(text))
    if len(found) != 1:
        raise TaskError(f"{place} states {len(found)} theorems; expected one: see task.question_field")
    begin, gap = found[0].start(), GAP.search(text)
    if gap is None:
        raise TaskError(
            f'{place} ends in {text[-40:]!r}; expected a theorem without a proof, which ends in ":= by sorry", '
            '":= by" or ":="'
        )
    return Statement(text[:begin].strip() or PREAMBLE, found[0][1], text[begin : gap.start()].strip())
