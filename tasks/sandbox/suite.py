"""The tests of one problem, compiled once and sent to the judge for each program that is checked."""

from __future__ import annotations

import ast
import marshal
from dataclasses import dataclass

from tasks.errors import TaskError


@dataclass(frozen=True)
class Suite:
    """Tests, ready to be sent."""

    names: tuple[str, ...]
    """What the tests take from the checked program; they see nothing else of it."""
    job: bytes
    """(names, prelude, tests) for box/judge.py. The sandbox runs the same Python, so that marshal fits."""


def build_suite(tests: str, names: tuple[str, ...], prelude: str = "", place: str = "the test script") -> Suite:
    """Compiles `tests`, which run after `prelude`, with `names` standing for the checked program's.

    A name that the prelude defines too is the program's. Raises TaskError when either is no Python.
    """
    try:
        # dont_inherit: our own `from __future__` lines are not part of the tests.
        codes = [compile(text, "<tests>", "exec", dont_inherit=True) for text in (prelude, tests)]
    except (SyntaxError, ValueError) as error:
        raise TaskError(f"{place} is no Python: {error}") from None
    return Suite(names, marshal.dumps((names, *codes)))


def defined_names(program: str) -> set[str]:
    """The functions, classes and variables that a program defines at its top level. Raises SyntaxError."""
    names: set[str] = set()
    for node in ast.parse(program).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names.update(target.id for target in node.targets if isinstance(target, ast.Name))
    return names


def used_names(tests: str) -> set[str]:
    """The names that the tests read and do not define at their own top level. Raises SyntaxError."""
    read = {node.id for node in ast.walk(ast.parse(tests)) if isinstance(node, ast.Name)}
    return read - defined_names(tests)


def imports_of(program: str) -> str:
    """The import statements at the top level of a program, which tests may rely on. Raises SyntaxError."""
    body = ast.parse(program).body
    return "\n".join(ast.unparse(node) for node in body if isinstance(node, ast.Import | ast.ImportFrom))
