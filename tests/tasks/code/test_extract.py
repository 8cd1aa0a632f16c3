"""The program within a completion."""

from __future__ import annotations

import pytest

from tasks.code.extract import continue_function, extract_code


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
