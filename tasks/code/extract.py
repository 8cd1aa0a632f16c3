"""The program within a completion. Pure functions of texts."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Collection

# A fence begins a line, so that ticks within a line open nothing. One that ends a line closes, too, and an opened block
# that the completion's end cut off is one as well.
BLOCK = re.compile(
    r"^(?P<indent>[ \t]*)```[ \t]*(?P<language>\w*)[^\n`]*\n(?P<code>.*?)(?:^[ \t]*```|```[ \t]*$|\Z)",
    re.DOTALL | re.MULTILINE,
)
PYTHON = ("python", "py", "python3")
# Where a completion that goes on from a function's head has left that function.
AFTER_FUNCTION = re.compile(r"\n(?=(?:class|def|async|if|print|assert|@|#|```|import|from)\b|[@#`])")


def extract_program(completion: str, names: Collection[str] = ()) -> str:
    """A whole program: as `extract_code`, freed of an indentation that all of its lines share."""
    return textwrap.dedent(extract_code(completion, names))


def extract_code(completion: str, names: Collection[str] = ()) -> str:
    """The last block that defines one of `names`, else the last one, else the whole completion.

    Of either kind a block that is marked as Python goes before one without a mark; others are none. What stands around
    a solution are often examples of its use.
    """
    found = [(match["language"].lower(), take_code(match)) for match in BLOCK.finditer(completion)]
    blocks = [code for languages in (("",), PYTHON) for language, code in found if language in languages]
    for code in reversed(blocks):
        if defines_any(code, names):
            return code
    return blocks[-1] if blocks else completion


def take_code(match: re.Match[str]) -> str:
    """A block's code. In a list its lines are indented as its fence is."""
    if not match["indent"]:
        return match["code"]
    return re.sub(rf"^[ \t]{{1,{len(match['indent'])}}}", "", match["code"], flags=re.MULTILINE)


def defines_any(code: str, names: Collection[str]) -> bool:
    """Whether one of these names is defined at the outermost level, as far as can be told of what may be no Python."""
    if not names:
        return False
    either = "|".join(map(re.escape, names))
    definition = rf"^(?:(?:(?:async[ \t]+)?def|class)[ \t]+(?:{either})\b|(?:{either})[ \t]*(?::[^=\n]*)?=)"
    return re.search(definition, textwrap.dedent(code), re.MULTILINE) is not None


def continue_function(prompt: str, entry_point: str, completion: str) -> str:
    """The program made of a prompt that ends in a function's head and docstring, and of a completion.

    The completion may hold the whole function, which then takes the head's place behind the prompt's imports and
    helpers, or go on with the function's body.
    """
    code = extract_code(completion, (entry_point,))
    head = re.compile(rf"^(?:async )?def {re.escape(entry_point)}\b", re.MULTILINE)
    whole = textwrap.dedent(code)
    if head.search(whole):
        place = head.search(prompt)
        return (prompt[: place.start()] if place else prompt) + whole
    body = AFTER_FUNCTION.split(code, maxsplit=1)[0]
    # Chat templates take the blanks off a completion's beginning.
    return prompt + (body if body[:1].isspace() else "    " + body)
