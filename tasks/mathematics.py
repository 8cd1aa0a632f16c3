"""Are two answers the same mathematics? By math-verify, in a process of its own where that could take long."""

from __future__ import annotations

import logging
import re
from decimal import Decimal
from functools import lru_cache
from typing import Any

from tasks.limited import call_limited

# Whole seconds for parsing, and again for comparing: math-verify's own limits, set by SIGALRM.
LIMIT_S = 2
# What Python computes within one call to C, such as a tower of powers, no signal interrupts.
KILL_S = 5.0
MEMORY_BYTES = 2**30
# Longer answers are no answers; parsing takes more than linear time.
MAX_CHARACTERS = 20_000
# What a few characters of could keep a machine busy, or a long text its parser. All else is compared in this process,
# within math-verify's own limits, which takes milliseconds and a process of its own ten times as long.
RISKY = re.compile(r"\^|\*\*|!|[0-9]{20}|\\(?:binom|choose|sum|prod|int|lim)")
MAX_CHARACTERS_HERE = 200
PLAIN_NUMBER = re.compile(r"-?\d{1,15}(?:\.\d{1,15})?")
# Behind a backslash it is the sign of a currency, which is printed.
MATHEMATICS_MODE = re.compile(r"(?<!\\)\$")
# Between digits a space means something: "1 2" is not 12.
SPACES = re.compile(r"(?<![0-9])\s+|\s+(?![0-9])|\\[,;!: ]")

logging.getLogger("math_verify").setLevel(logging.ERROR)  # A completion that takes too long is no news.


def is_same_mathematics(reference: str, text: str, answer: str) -> bool:
    """Whether what math-verify reads in `text` equals `reference`. `answer` is the bare answer in it, if it has one.

    Equal writing is equal without math-verify, which cannot read every answer of MATH; numbers are compared as such.
    """
    expected, given = normalise(reference), normalise(answer)
    if not given or len(text) > MAX_CHARACTERS:
        return False
    if expected == given:
        return True
    if PLAIN_NUMBER.fullmatch(expected) and PLAIN_NUMBER.fullmatch(given):
        return Decimal(expected) == Decimal(given)
    parsed = parse_reference(reference)
    if not parsed:
        return False
    if len(text) <= MAX_CHARACTERS_HERE and not RISKY.search(text):
        return verify_text(parsed, text)
    return bool(call_limited(lambda: verify_text(parsed, text), KILL_S, MEMORY_BYTES))


def normalise(answer: str) -> str:
    """Without what LaTeX does not print, and with one spelling of what it prints alike."""
    text = SPACES.sub("", answer.replace("\\$", "").strip().strip("$").rstrip("."))
    return text.replace("dfrac", "frac").replace("tfrac", "frac").replace("\\left", "").replace("\\right", "")


@lru_cache(maxsize=256)
def parse_reference(reference: str) -> list[Any]:
    """The right answer as math-verify reads it. Bare LaTeX is boxed, as it is only read in an anchor."""
    from math_verify import parse

    anchored = MATHEMATICS_MODE.search(reference) or any(mark in reference for mark in ("\\boxed", "\\(", "\\["))
    expression: list[Any] = parse(reference if anchored else f"\\boxed{{{reference}}}", parsing_timeout=LIMIT_S)
    return expression or parse(reference, parsing_timeout=LIMIT_S)


def verify_text(expected: list[Any], text: str) -> bool:
    from math_verify import parse, verify

    return bool(verify(expected, parse(text, parsing_timeout=LIMIT_S), timeout_seconds=LIMIT_S))
