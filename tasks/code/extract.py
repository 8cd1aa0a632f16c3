"""The program within a completion. Pure functions of texts."""

from __future__ import annotations

import re

# An opened block that the completion's end cut off is one, too.
BLOCK = re.compile(r"```[ \t]*(?P<language>\w*)[^\n]*\n(?P<code>.*?)(?:```|\Z)", re.DOTALL)
PYTHON = ("python", "py", "python3")
# Where a completion that goes on from a function's head has left that function.
AFTER_FUNCTION = re.compile(r"\n(?=(?:class|def|async|if|print|assert|@|#|```|import|from)\b|[@#`])")


def extract_code(completion: str) -> str:
    """The last block that is marked as Python, else the last unmarked one, else the whole completion."""
    blocks = [(match["language"].lower(), match["code"]) for match in BLOCK.finditer(completion)]
    for languages in (PYTHON, ("",)):
        for language, code in reversed(blocks):
            if language in languages:
                return str(code)
    return completion


def continue_function(prompt: str, entry_point: str, completion: str) -> str:
    """The program made of a prompt that ends in a function's head and docstring, and of a completion.

    The completion may hold the whole function, which then takes the head's place behind the prompt's imports and
    helpers, or go on with the function's body.
    """
    code = extract_code(completion)
    head = re.compile(rf"^(?:async )?def {re.escape(entry_point)}\b", re.MULTILINE)
    if head.search(code):
        place = head.search(prompt)
        return (prompt[: place.start()] if place else prompt) + code
    body = AFTER_FUNCTION.split(code, maxsplit=1)[0]
    # Chat templates take the blanks off a completion's beginning.
    return prompt + (body if body[:1].isspace() else "    " + body)
