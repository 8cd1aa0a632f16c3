"""What the sandbox says about programs that mean no harm, and that nothing passes from one check to the next."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator

import psutil
import pytest

from tasks.errors import TaskError
from tasks.sandbox import Limits, Sandbox, SandboxError, Verdict, build_suite, choose, try_sandbox


@pytest.fixture(scope="module", params=["bubblewrap", "process"])
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    try:
        choose(request.param)
    except TaskError as error:
        pytest.skip(str(error))
    with Sandbox(Limits(time_s=5.0), request.param) as sandbox:
        yield sandbox


def check(sandbox: Sandbox, program: str, tests: str, *names: str, prelude: str = "") -> Verdict:
    return sandbox.check(program, build_suite(tests, names or ("f",), prelude))


def test_a_right_program_passes(sandbox: Sandbox) -> None:
    assert check(sandbox, "def f(x): return x + 1", "assert f(1) == 2\nassert f(x=2) == 3") == Verdict(True, "")


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("def f(x): return x", "a wrong answer"),
        ("def f(x): return 1 / 0", "the program raised ZeroDivisionError: division by zero"),
        ("def f(x) return x", "the program raised SyntaxError"),
        ("def g(x): return x", "the program raised NameError: name 'f' is not defined"),
        ("import no_such_module", "the program raised ModuleNotFoundError"),
        ("x = '\ud800'", "the program is no text"),
        ("def f(x): return f(x)", "the program raised RecursionError"),
        ("def f(x):\n    a = []\n    a.append(a)\n    return a", "the program raised"),
    ],
)
def test_a_wrong_program_does_not_and_says_why(sandbox: Sandbox, program: str, reason: str) -> None:
    verdict = check(sandbox, program, "assert f(1) == 2")
    assert not verdict.passed
    assert verdict.reason.startswith(reason)


def test_tests_that_call_nothing_pass_nothing(sandbox: Sandbox) -> None:
    assert not check(sandbox, "def f(x): return x", "for x in []:\n    assert f(x) == x").passed


def test_warnings_of_the_tests_fill_nothing_up(sandbox: Sandbox) -> None:
    tests = "import sys\nsys.stderr.write('warning' * 30_000)\nprint('x' * 100_000)\nassert f(1) == 1"
    for _ in range(2):
        assert check(sandbox, "def f(x): return x", tests).passed


def test_tests_may_use_objects_that_only_the_program_can_make(sandbox: Sandbox) -> None:
    program = """
class Node:
    def __init__(self, value):
        self.value, self.left = value, None
def depth(node):
    return 0 if node is None else 1 + depth(node.left)
def squares(n):
    return (i * i for i in range(n))
"""
    tests = """
root = Node(1)
root.left = Node(2)
root.left.left = Node(3)
assert depth(root) == 3 and root.left.left.value == 3 and root.left is not None
assert list(squares(4)) == [0, 1, 4, 9]
"""
    assert check(sandbox, program, tests, "Node", "depth", "squares") == Verdict(True, "")


def test_an_object_of_the_programs_equals_no_value(sandbox: Sandbox) -> None:
    program = "class A:\n    def __eq__(self, other): return True\ndef f(): return A()"
    assert not check(sandbox, program, "assert f() == 1").passed


def test_the_prelude_is_the_tests_own(sandbox: Sandbox) -> None:
    program = "def helper(x): return 0\ndef f(x): return 0"
    verdict = check(sandbox, program, "assert f(3) == helper(3)", prelude="def helper(x): return x")
    assert verdict.reason == "a wrong answer"


def test_no_state_passes_from_one_check_to_the_next(sandbox: Sandbox) -> None:
    first = """
import builtins, math, os, random, sys
math.pi, builtins.ord, sys.left_behind = 3, lambda _: 0, True
os.environ["LEFT"] = "behind"
sys.modules["json"] = None
def f(): return True
"""
    second = """
import json, math, os, sys
def f(): return math.pi > 3 and ord("a") == 97 and not hasattr(sys, "left_behind") and "LEFT" not in os.environ
"""
    for _ in range(4):  # more often than there are pairs in store
        assert check(sandbox, first, "assert f()").passed
        assert check(sandbox, second, "assert f()").passed


def test_verdicts_do_not_depend_on_the_order_of_a_set(sandbox: Sandbox) -> None:
    program = "def f(): return ''.join({'a', 'b', 'c', 'd', 'e'})"
    order = check(sandbox, program, "raise AssertionError(f())").reason.removeprefix("a wrong answer: ")
    sandbox.close()  # another interpreter, which must order alike
    assert sorted(order) == list("abcde")
    assert check(sandbox, program, f"assert f() == {order!r}").passed


def test_both_ways_import_the_same_usual_modules(sandbox: Sandbox) -> None:
    program = (
        "import collections, datetime, heapq, itertools, math, numpy, re, typing\ndef f(): return numpy.sum([1, 2])"
    )
    assert check(sandbox, program, "assert f() == 3").passed
    assert check(
        sandbox, "import datetime\ndef f(): return datetime.datetime.strptime('2026', '%Y').year", "assert f() == 2026"
    ).passed


def test_a_sandbox_that_was_killed_fails_once_and_starts_again(sandbox: Sandbox) -> None:
    check(sandbox, "def f(x): return x", "assert f(1) == 1")
    assert sandbox._running is not None
    tree = psutil.Process(sandbox._running._process.pid)
    for process in [*tree.children(recursive=True), tree]:
        with contextlib.suppress(psutil.NoSuchProcess):  # the end of one is the end of others
            process.send_signal(signal.SIGKILL)
    psutil.wait_procs([tree], timeout=5)
    with pytest.raises(SandboxError):
        check_often(sandbox)
    assert check(sandbox, "def f(x): return x", "assert f(1) == 1").passed


def check_often(sandbox: Sandbox) -> None:
    """More often than there are pairs that were ready before and may still serve."""
    for _ in range(5):
        check(sandbox, "def f(x): return x", "assert f(1) == 1")


def test_tests_that_are_no_python_are_an_error() -> None:
    with pytest.raises(TaskError, match="the tests of record 3 is no Python"):
        build_suite("assert (", ("f",), place="the tests of record 3")


def test_bubblewrap_that_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    choose.cache_clear()
    try:
        with pytest.raises(TaskError, match=r'task\.sandbox is "bubblewrap", but bwrap is not installed; install'):
            choose("bubblewrap")
        way = choose("auto")
        assert way.name == "process"
        assert "without bubblewrap" in way.note
    finally:
        choose.cache_clear()


def test_other_systems_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    choose.cache_clear()
    try:
        with pytest.raises(TaskError, match="a sandbox on Linux"):
            choose("auto")
    finally:
        choose.cache_clear()


def test_trying_it_says_what_is_not_contained(monkeypatch: pytest.MonkeyPatch) -> None:
    assert any("without bubblewrap" in note for note in try_sandbox("process"))
    monkeypatch.setattr("tasks.sandbox.sandbox.PROGRAM", "raise SystemExit(3)")
    with pytest.raises(TaskError, match="cannot be sandboxed here: the sandbox did not start"):
        try_sandbox("process")
