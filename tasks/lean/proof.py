"""The proof within a completion: found, freed of comments, and refused if it could be anything but a proof."""

from __future__ import annotations

import re

from tasks.lean.comments import strip_comments
from tasks.lean.statement import THEOREM, Statement

FENCE = re.compile(r"```[ \t]*[A-Za-z0-9]*[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL)
# Nothing that could state, define, redefine or print anything, change how Lean reads or checks, run a program while
# Lean elaborates, or leave the proof out. What is refused here is also caught by the axioms that Lean reports, or would
# harm the checker's machine rather than the verdict.
WORDS = """
    sorry admit sorryAx native_decide ofReduceBool ofReduceNat reduceBool reduceNat trustCompiler
    axiom axioms opaque theorem lemma def abbrev example instance class structure inductive coinductive mutual
    namespace section end universe variable import export include omit attribute deriving alias
    notation infix infixl infixr prefix postfix macro macro_rules syntax declare_syntax_cat elab elab_rules term_elab
    tactic_elab command_elab initialize builtin_initialize simproc dsimproc simproc_decl
    run_cmd run_elab run_meta run_tac by_elab eval_expr evalExpr include_str unsafe partial implemented_by extern csimp
    set_option polyrith
"""
REFUSED = re.compile(r"(?<![\w'!?])(?:" + "|".join(WORDS.split()) + r")(?![\w'])|eval%|#|@\[|«|»")


def find_proof(statement: Statement, completion: str) -> str | None:
    """What the completion puts behind ":=", or None when it is no proof of just this statement.

    It may give the proof alone or the whole theorem, the last ```-block counts; a theorem must be the statement, word
    for word, with nothing before it but the statement's own preamble.
    """
    blocks = FENCE.findall(completion)
    text = strip_comments(blocks[-1] if blocks else completion)
    if text is None:
        return None
    theorem = THEOREM.search(text)
    proof = as_term(text) if theorem is None else cut_statement(statement, text, theorem.start())
    if not proof or proof == "by" or REFUSED.search(proof):
        return None
    return proof


def cut_statement(statement: Statement, text: str, begin: int) -> str | None:
    """What follows ":=" of the statement that begins at `begin`. None when it is another one, or comes with more."""
    ours = {line.strip() for line in statement.preamble.splitlines()}
    if any(line.strip() not in ours for line in text[:begin].splitlines() if line.strip()):
        return None
    words = r"\s+".join(re.escape(word) for word in statement.claim.split())
    match = re.compile(rf"\s*{words}\s*:=").match(text, begin)
    return None if match is None else text[match.end() :].strip()


def as_term(proof: str) -> str:
    """A proof that stands alone, as a term: tactics get the "by" that they lack."""
    text = re.sub(r"\A\s*:=", "", proof).strip("\n").rstrip()
    if not text.strip() or re.match(r"\s*by\b", text):
        return text.lstrip()
    return "by\n" + "\n".join(f"  {line}" for line in text.splitlines())
