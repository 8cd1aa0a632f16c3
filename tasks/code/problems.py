"""The four data sets' records: what is asked, which program a completion makes, and which tests it must pass."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any, Protocol

from tasks.code.extract import continue_function, extract_program
from tasks.errors import TaskError
from tasks.sandbox.suite import Suite, build_suite, defined_names, imports_of, used_names

Row = Mapping[str, Any]
# EvalPlus' tests compare floats by numpy.allclose, which broadcasts: an empty list is close to any number, so that
# `return []` would solve 24 problems of MBPP+ and 3 of HumanEval+.
SAME_SHAPE = """
import numpy
def allclose(a, b, rtol=1e-5, atol=1e-8, compare=numpy.allclose):
    return numpy.shape(a) == numpy.shape(b) and bool(compare(a, b, rtol=rtol, atol=atol))
numpy.allclose = allclose
"""


class Format(Protocol):
    """How the records of one data set are read. The methods take records that `check` has accepted."""

    path: str
    """Name of the data set on the Hugging Face hub."""
    subset: str | None
    split: str
    """The split that holds all records, or those to train on where the data set tells them apart."""

    def check(self, row: Row, place: str) -> None:
        """Raises TaskError when a field is missing or of the wrong type."""

    def question(self, row: Row) -> str:
        """What the model is asked."""

    def program(self, row: Row, completion: str, names: tuple[str, ...]) -> str:
        """The program that a completion makes, of which the tests take `names`."""

    def solution(self, row: Row) -> str:
        """The record's own program, which must pass."""

    def suite(self, row: Row, place: str) -> Suite:
        """The tests. Raises TaskError when they cannot be compiled, or do not test the record's own program."""


class Mbpp:
    """Mostly basic Python problems (Austin et al. 2021, arXiv 2108.07732), with the tests as they came.

    The prompt is a docstring with the text and the first assertion, which gives away the function's name; the others
    stay hidden. The edited records ("sanitized") name the text `prompt`.
    """

    path: str = "google-research-datasets/mbpp"
    subset: str | None = "full"
    split: str = "train"
    prelude = ""

    def check(self, row: Row, place: str) -> None:
        expect(row, place, **{"code": str, "test_list": list, text_field(row): str})
        for field in ("test_list", "test_imports"):
            if field in row:
                expect_texts(row, place, field)
        if not row["test_list"]:
            raise TaskError(f'{place} has the field "test_list" []; expected one or more texts')
        if row.get("test_setup_code") is not None:
            expect(row, place, test_setup_code=str)

    def question(self, row: Row) -> str:
        return f'"""\n{row[text_field(row)].strip()}\n{row["test_list"][0].strip()}\n"""\n'

    def program(self, row: Row, completion: str, names: tuple[str, ...]) -> str:
        return extract_program(completion, names)

    def solution(self, row: Row) -> str:
        return str(row["code"])

    def tests(self, row: Row) -> str:
        return "\n".join([str(row.get("test_setup_code") or ""), *row["test_list"]])

    def suite(self, row: Row, place: str) -> Suite:
        try:
            tests = self.tests(row)
            # Only what the solution defines: a program that defines `set` or `len` must not change the tests.
            names = tuple(sorted(used_names(tests) & defined_names(row["code"])))
            prelude = "\n".join([self.prelude, *row.get("test_imports", ()), imports_of(row["code"])])
        except (SyntaxError, ValueError) as error:
            raise TaskError(f"{place} has code or tests that are no Python: {error}") from None
        if not names:
            raise TaskError(f'{place} has a program in the field "code" that defines nothing which its tests use')
        return build_suite(tests, names, prelude, place)


class MbppPlus(Mbpp):
    """MBPP with many more tests (Liu et al. 2023, arXiv 2305.01210). The first assertion is still MBPP's own."""

    path = "evalplus/mbppplus"
    subset: str | None = None
    split = "test"
    prelude = SAME_SHAPE

    def check(self, row: Row, place: str) -> None:
        expect(row, place, test=str)
        super().check(row, place)

    def tests(self, row: Row) -> str:
        """As they came, but for those of 737, 787 and 794, which compare and then assert nothing."""
        tree = ast.parse(row["test"])
        compare = next(
            (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "assertion"), None
        )
        if compare is None or any(isinstance(node, ast.Assert) for node in ast.walk(compare)):
            return str(row["test"])
        compare.body += ast.parse("assert exact_match").body
        return ast.unparse(ast.fix_missing_locations(tree))


class HumanEval:
    """A function's head and docstring, to be completed (Chen et al. 2021, arXiv 2107.03374)."""

    path: str = "openai/openai_humaneval"
    subset: str | None = None
    split: str = "test"
    prelude = ""

    def check(self, row: Row, place: str) -> None:
        expect(row, place, prompt=str, canonical_solution=str, test=str, entry_point=str)

    def question(self, row: Row) -> str:
        return str(row["prompt"])

    def program(self, row: Row, completion: str, names: tuple[str, ...]) -> str:
        return continue_function(row["prompt"], row["entry_point"], completion)

    def solution(self, row: Row) -> str:
        return str(row["prompt"]) + str(row["canonical_solution"])

    def suite(self, row: Row, place: str) -> Suite:
        entry = row["entry_point"]
        for field, name, text in (("test", "check", row["test"]), ("entry_point", entry, self.solution(row))):
            try:
                is_defined = name in defined_names(text)
            except (SyntaxError, ValueError) as error:
                raise TaskError(f"{place} has a program or tests that are no Python: {error}") from None
            if not is_defined:
                raise TaskError(f'{place} has the field "{field}", but no definition of {name!r:.80}')
        # Tests may use the prompt's helpers: its own, not those of the checked program.
        prelude = f"{self.prelude}\n{row['prompt']}\n    pass\n"
        return build_suite(f"{row['test']}\n\ncheck({entry})\n", (entry,), prelude, place)


class HumanEvalPlus(HumanEval):
    """HumanEval with many more tests (Liu et al. 2023)."""

    path = "evalplus/humanevalplus"
    prelude = SAME_SHAPE


FORMATS: dict[str, Format] = {
    "mbpp": Mbpp(),
    "mbpp_plus": MbppPlus(),
    "humaneval": HumanEval(),
    "humaneval_plus": HumanEvalPlus(),
}


def expect(row: Row, place: str, **fields: type) -> None:
    """Raises TaskError unless the record has these fields, of these types."""
    for field, kind in fields.items():
        if field not in row:
            missing(row, place, field)
        if not isinstance(row[field], kind):
            raise TaskError(f'{place} has {type(row[field]).__name__} in the field "{field}"; expected {NAMES[kind]}')


def expect_texts(row: Row, place: str, field: str) -> None:
    """Raises TaskError unless the field is an array of texts."""
    expect(row, place, **{field: list})
    if not all(isinstance(each, str) for each in row[field]):
        raise TaskError(f'{place} has the field "{field}" {row[field]!r:.80}; expected an array of texts')


def text_field(row: Row) -> str:
    """Where a record of MBPP says what is asked. Hubs fill fields that only some records have with nothing."""
    return "prompt" if row.get("text") is None and row.get("prompt") is not None else "text"


def missing(row: Row, place: str, field: str) -> None:
    raise TaskError(f'{place} has no field "{field}"; it has {", ".join(sorted(row)) or "none"}')


NAMES: dict[type, str] = {str: "text", list: "an array"}
