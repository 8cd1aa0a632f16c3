"""Small changes that break a program: what a checker that tells right from wrong must judge 0."""

from __future__ import annotations

import ast
from collections.abc import Callable

OPERATORS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.Lt: ast.Gt,
    ast.Gt: ast.Lt,
    ast.LtE: ast.GtE,
    ast.GtE: ast.LtE,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.And: ast.Or,
    ast.Or: ast.And,
}


class FirstChange(ast.NodeTransformer):
    """Applies `change` to the nodes in order, until it has changed one."""

    def __init__(self, change: Callable[[ast.AST], ast.AST | None]) -> None:
        self._change = change
        self.has_changed = False

    def visit(self, node: ast.AST) -> ast.AST:
        if not self.has_changed and (changed := self._change(node)) is not None:
            self.has_changed = True
            return changed
        return self.generic_visit(node) if not self.has_changed else node


def add_one(node: ast.AST) -> ast.AST | None:
    """An integer, one larger."""
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return ast.Constant(node.value + 1)
    return None


def swap_operator(node: ast.AST) -> ast.AST | None:
    """An operator, replaced by another one."""
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        return ast.BinOp(node.left, OPERATORS[type(node.op)](), node.right)  # type: ignore[arg-type]
    if isinstance(node, ast.BoolOp):
        return ast.BoolOp(OPERATORS[type(node.op)](), node.values)  # type: ignore[arg-type]
    if isinstance(node, ast.Compare) and type(node.ops[0]) in OPERATORS:
        return ast.Compare(node.left, [OPERATORS[type(node.ops[0])](), *node.ops[1:]], node.comparators)  # type: ignore[list-item]
    return None


def return_always(program: str, names: tuple[str, ...], value: ast.expr) -> str | None:
    """The program whose functions `names` only return `value`."""
    tree = ast.parse(program)
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name in names]
    for function in functions:
        function.body = [ast.Return(value)]
    return ast.unparse(ast.fix_missing_locations(tree)) if functions else None


def change_first(program: str, change: Callable[[ast.AST], ast.AST | None]) -> str | None:
    """The program with its first change inside of a function. None where there is nothing to change."""
    tree = ast.parse(program)
    changer = FirstChange(change)
    for function in [node for node in tree.body if isinstance(node, ast.FunctionDef)][::-1]:
        function.body = [node if is_docstring(node) else changer.visit(node) for node in function.body]  # type: ignore[misc]
        if changer.has_changed:
            return ast.unparse(ast.fix_missing_locations(tree))
    return None


def is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def mutants(program: str, names: tuple[str, ...]) -> dict[str, str]:
    """The mutants of a program, as far as it has what they change."""
    found = {
        "return None": return_always(program, names, ast.Constant(None)),
        "return []": return_always(program, names, ast.List([], ast.Load())),
        "off by one": change_first(program, add_one),
        "swapped operator": change_first(program, swap_operator),
    }
    return {name: mutant for name, mutant in found.items() if mutant is not None}


def compare(reference: str, mutant: str, names: tuple[str, ...]) -> str:
    """A program that passes the same tests only if both give the same for every call, to the last digit.

    Otherwise it raises an ArithmeticError that says whether the two are at least equal.
    """
    defined = "\n".join(f"def {name}(*a, **k):\n    return _both(r[{name!r}], m[{name!r}], a, k)" for name in names)
    return f"{COMPARISON}r, m = {{}}, {{}}\nexec({reference!r}, r)\nexec({mutant!r}, m)\n{defined}"


COMPARISON = """
import copy
def _run(function, a, k):
    value = function(*a, **k)
    return list(value) if hasattr(value, "__next__") else value
def _both(reference, mutant, a, k):
    b, l = copy.deepcopy((a, k))
    left = _run(reference, a, k)
    if isinstance(reference, type):
        return left
    right = _run(mutant, b, l)
    if repr(left) != repr(right):
        raise ArithmeticError("equal" if left == right else "not equal")
    return left
"""
