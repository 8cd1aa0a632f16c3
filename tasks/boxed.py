"""The last \\boxed{} of a text: where the answers of MATH stand."""

from __future__ import annotations

import re

# Some solutions write \fbox{…}, some \boxed 5 without braces.
MARK = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])\s*")
BARE = re.compile(r"[^\s$\\{}]+")
BRACES = re.compile(r"\\.|[{}]", re.DOTALL)


def last_boxed(text: str) -> str | None:
    """What the last box of `text` holds, its braces balanced: "\\boxed{\\frac{1}{2}}" holds "\\frac{1}{2}".

    None without a box, and when the last one is not closed: a completion that was cut off has no answer, although an
    earlier box may stand there.
    """
    marks = list(MARK.finditer(text))
    if not marks:
        return None
    last = marks[-1]
    if not text.startswith("{", last.end()):
        bare = BARE.match(text, last.end())
        return bare[0].rstrip(".,;:") if bare else None
    depth = 0
    for brace in BRACES.finditer(text, last.end()):
        # "\{" and "\}" are signs that are printed, and close nothing.
        depth += {"{": 1, "}": -1}.get(brace[0], 0)
        if depth == 0:
            return text[last.end() + 1 : brace.start()].strip()
    return None
