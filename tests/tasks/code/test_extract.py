"""The program within a completion."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tasks.code.extract import continue_function, extract_code, extract_program


@pytest.mark.parametrize(
    ("completion", "code"),
    [
        ("x = 1", "x = 1"),
        ("Here:\n```python\nx = 1\n```\nDone.", "x = 1\n"),
        ("```python\nx = 1\n```\nor\n```python\nx = 2\n```", "x = 2\n"),
        ("```Python 3\nx = 1\n```\nOutput:\n```\n1\n```", "x = 1\n"),
        ("```py\nx = 1", "x = 1"),
        ("```\nx = 1\n```", "x = 1\n"),
        ("```bash\nls\n```", "```bash\nls\n```"),
        ("", ""),
    ],
)
def test_the_last_python_block_counts_else_an_unmarked_one_else_everything(completion: str, code: str) -> None:
    assert extract_code(completion) == code


F = "def f():\n    return 1\n"


@pytest.mark.parametrize(
    "completion",
    [
        f"```python\n{F}```",
        f"```python\n{F}```\nFor example:\n```python\nprint(f())\n```",
        f"```python\n{F}```\nIt prints\n```\n1\n```",
        f"```\n{F}```\nFor example:\n```python\nprint(f())\n```",
        f"```python\ndef f():\n    return 0\n```\nBetter:\n```python\n{F}```\n```python\nassert f() == 1\n```",
        f"Use ```return``` for\n\n```python\n{F}```\nand ```f()``` gives 1.",
        f"Write ```python\n\n```python\n{F}```",
        "1. Define it:\n   ```python\n   def f():\n       return 1\n   ```\n2. Call it:\n   ```python\n   f()\n   ```",
        "```python\n    def f():\n        return 1\n```",
        "```python\ndef f():\n    return 1```",
        f"```python\n{F}",
    ],
)
def test_the_solution_is_found_among_examples_and_whatever_its_indentation(completion: str) -> None:
    assert extract_program(completion, ("f",)).strip() == F.strip()
    namespace: dict[str, Any] = {}
    exec(continue_function('def f():\n    """One."""\n', "f", completion), namespace)
    assert namespace["f"]() == 1


def test_ticks_within_the_code_do_not_end_it() -> None:
    code = "def f():\n    return '```' + \"```python\"  # ``` or so\n"
    assert extract_program(f"```python\n{code}```", ("f",)) == code


@pytest.mark.parametrize("code", ["async def f(): pass", "class f: pass", "f = len", "f: int = 1"])
def test_whatever_defines_the_name_is_a_solution(code: str) -> None:
    assert extract_code(f"```python\n{code}\n```\n```python\nf() == 2\n```", ("f",)) == f"{code}\n"


@pytest.mark.parametrize(
    "text", ["```\n" * 50_000, "   ```x" * 50_000, " " * 200_000 + "```", "```python\n" + " " * 200_000]
)
def test_reading_takes_linear_time(text: str) -> None:
    begin = time.thread_time()
    extract_program(text, ("f",))
    assert time.thread_time() - begin < 5


PROMPT = 'import math\n\ndef helper(x):\n    return x\n\ndef area(r):\n    """Of a disc."""\n'


@pytest.mark.parametrize(
    "completion",
    [
        "    return math.pi * helper(r) ** 2\n",
        "return math.pi * helper(r) ** 2",
        "    p = math.pi\n    return p * helper(r) ** 2\n\nprint(area(3))\nsyntax error",
        "    return math.pi * r ** 2\n\n\ndef other(:\n",
        "    return math.pi * r ** 2\n# that is all\nNow some prose.",
        "```python\n    return math.pi * helper(r) ** 2\n```",
        "Sure!\n```python\ndef area(r):\n    return math.pi * helper(r) ** 2\n```\nThat is it.",
        "```python\nfrom math import pi\ndef area(r):\n    return pi * r ** 2\n```",
    ],
)
def test_a_completion_goes_on_with_the_function_or_writes_it_anew(completion: str) -> None:
    namespace: dict[str, object] = {}
    exec(continue_function(PROMPT, "area", completion), namespace)
    assert namespace["area"](1) == pytest.approx(3.14159, abs=1e-4)  # type: ignore[operator]
