"""Proofs in Lean, with a stub in Lean's place: what reaches it, what does not, and what is made of its answer.

No Lean runs here. The stub speaks the protocol of the Kimina server and knows which proofs it shall accept.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from tasks import EvalConfig, TaskConfig, TaskError, build_task, difficulty_of, validate
from tasks.lean.comments import strip_comments
from tasks.lean.program import Program
from tasks.lean.proof import find_proof
from tasks.lean.statement import PREAMBLE, Statement, read_statement
from tasks.lean.stub import StubServer
from tasks.runner import RewardRunner

MINIF2F = Path(__file__).parent / "data" / "minif2f.jsonl"
STATEMENT = read_statement("theorem double (n : ℕ)\n    (h : n = 2) : n + n = 4 := by sorry", "here")
PROOF = "by\n  subst h\n  norm_num"


@pytest.fixture
def stub() -> Iterator[StubServer]:
    server = StubServer([PROOF])
    yield server
    server.close()


def config_of(stub: StubServer, **fields: Any) -> TaskConfig:
    return TaskConfig(**{"name": "minif2f", "path": str(MINIF2F), "params": {"server": stub.url}, **fields})


def reward(task: Any, index: int, completion: str) -> float:
    async def ask() -> float:
        value = task.reward(task.prompt(index), completion)
        return value if isinstance(value, float) else await value

    return asyncio.run(ask())


@pytest.mark.parametrize("end", [":= by sorry", ":= sorry", ":= by\n", ":=", ":= by\n  sorry\n"])
def test_a_statement_is_read_whatever_stands_for_its_proof(end: str) -> None:
    source = f"import Mathlib\nopen Real\n\n/-- A note. -/\ntheorem t.a (x : ℝ := 1) : x = x {end}"
    statement = read_statement(source, "here")
    assert statement == Statement("import Mathlib\nopen Real", "t.a", "theorem t.a (x : ℝ := 1) : x = x")
    assert statement.text == "import Mathlib\nopen Real\n\ntheorem t.a (x : ℝ := 1) : x = x := by"


def test_a_statement_without_imports_gets_the_usual_ones() -> None:
    assert STATEMENT.preamble == PREAMBLE


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def f := 1", "here states 0 theorems"),
        ("theorem a : 1 = 1 := sorry\ntheorem b : 2 = 2 := sorry", "here states 2 theorems"),
        ("theorem a : 1 = 1 := by norm_num", "here ends in .*expected a theorem without a proof"),
    ],
)
def test_what_is_no_statement_is_refused(source: str, message: str) -> None:
    with pytest.raises(TaskError, match=message):
        read_statement(source, "here")


@pytest.mark.parametrize(
    "completion",
    [
        "by\n  subst h\n  norm_num",
        "subst h\nnorm_num",
        "```lean4\nsubst h\nnorm_num\n```",
        f"Here it is:\n```lean4\n{STATEMENT.claim} := by\n  subst h\n  norm_num\n```\nDone, sorry for the wait.",
        f"```lean\n{STATEMENT.text}\n  subst h\n  norm_num\n```",
        f"```lean4\nby ring\n```\nNo:\n```lean4\n{STATEMENT.claim} := by -- first\n"
        "  subst h /- not /- sorry -/ -/\n  norm_num",
        "```lean4\ntheorem double (n : ℕ) (h : n = 2) :\n  n + n = 4 := by\n  subst h\n  norm_num\n```",
    ],
)
def test_a_proof_is_found_alone_or_behind_its_statement(completion: str) -> None:
    proof = find_proof(STATEMENT, completion)
    assert proof is not None
    assert proof.split() == PROOF.split()


def behind(statement: str, proof: str = "by\n  subst h\n  norm_num", before: str = "") -> str:
    return f"```lean4\n{before}{statement} := {proof}\n```"


CHEATS = {
    "nothing": "",
    "empty block": "```lean4\n```",
    "by alone": "by",
    "sorry": behind(STATEMENT.claim, "by sorry"),
    "sorry within": "by\n  have : 1 = 2 := by sorry\n  omega",
    "admit": "by\n  admit",
    "sorryAx": "by exact sorryAx _ true",
    "native_decide": "by native_decide",
    "reduceBool": "by exact Lean.ofReduceBool _ _ rfl",
    "another claim": behind("theorem double (n : ℕ) (h : n = 2) : n + n = n + n"),
    "another hypothesis": behind("theorem double (n : ℕ) (h : n = 2) (g : False) : n + n = 4"),
    "another name": behind("theorem triple (n : ℕ) (h : n = 2) : n + n = 4"),
    "a lemma before": behind(STATEMENT.claim, before="theorem x : 1 = 1 := rfl\n"),
    "an axiom before": behind(STATEMENT.claim, before="axiom x : False\n"),
    "notation before": behind(STATEMENT.claim, before='local notation "4" => (n + n)\n'),
    "another import": behind(STATEMENT.claim, before="import Lean\n"),
    "an option before": behind(STATEMENT.claim, before="set_option debug.skipKernelTC true\n"),
    "an axiom behind": behind(STATEMENT.claim, PROOF + "\naxiom x : False"),
    "the theorem again": behind(STATEMENT.claim, PROOF + "\n" + STATEMENT.claim + " := by norm_num"),
    "a definition behind": PROOF + "\n\ndef f := 1",
    "eval": PROOF + "\n\n#eval IO.println 1",
    "print": "by\n  trivial\n\n#print axioms double",
    "a macro for print": PROOF + '\n\nmacro "#print" "axioms" ident : command => `(command| section)',
    "a program": "by\n  run_tac Lean.logInfo m!\"'double' does not depend on any axioms\"",
    "a term program": "by_elab return .const ``True.intro []",
    "an option within": "by\n  set_option debug.skipKernelTC true in\n  norm_num",
    "an attribute": PROOF + "\n\nattribute [simp] Nat.add_comm",
    "end of the namespace": PROOF + "\n\nend Foo",
    "an open comment": "by\n  trivial /-",
    "a quoted name": "by exact «sorryAx» _ true",
    "a file": 'by\n  exact absurd (include_str "/etc/passwd") id',
    "unsafe": "by exact unsafe lcProof",
}


@pytest.mark.parametrize("name", CHEATS)
def test_what_is_no_plain_proof_of_the_statement_never_reaches_lean(name: str) -> None:
    assert find_proof(STATEMENT, CHEATS[name]) is None


def test_comments_nest_and_literals_are_kept() -> None:
    assert strip_comments('a /- b /- c -/ d -/ e -- f\n"-- g" h') == 'a   e  \n"-- g" h'
    assert strip_comments("a /- b /- c -/ d") is None


def test_what_is_searched_is_what_is_checked(stub: StubServer) -> None:
    # However this reads the quotes, the word is either found or not handed on.
    for text in ('by\n  exact "\\" -- " sorry', "by\n  exact '\"' sorry '\"'", 'by\n  trivial "/-" sorry "-/"'):
        proof = find_proof(STATEMENT, text)
        assert proof is None or "sorry" not in Program(STATEMENT, proof).text


def message(data: str, severity: str = "info") -> dict[str, Any]:
    return {"severity": severity, "pos": {"line": 1, "column": 0}, "data": data}


def test_a_verdict_needs_no_error_no_gap_and_the_standard_axioms() -> None:
    program = Program(STATEMENT, PROOF)
    name = f"{program.namespace}.double"
    good = message(f"'{name}' depends on axioms: [propext,\n Classical.choice,\n Quot.sound]")
    assert program.is_proved([good])
    assert program.is_proved([message(f"'{name}' does not depend on any axioms"), message("linter", "warning")])
    assert not program.is_proved([])
    assert not program.is_proved([good, message("unsolved goals", "error")])
    assert not program.is_proved([good, message("declaration uses 'sorry'", "warning")])
    assert not program.is_proved([good, good])
    for axioms in ("sorryAx", "propext, Lean.ofReduceBool", "Lean.trustCompiler", "x"):
        assert not program.is_proved([message(f"'{name}' depends on axioms: [{axioms}]")])
    # What a proof could print itself: it cannot know the namespace.
    assert not program.is_proved([message("'double' does not depend on any axioms")])
    assert Program(STATEMENT, PROOF).namespace != program.namespace


def test_the_theorem_in_the_program_is_the_statement() -> None:
    text = Program(STATEMENT, PROOF, namespace="N").text
    assert text == (
        f"{PREAMBLE}\n\nnamespace N\n\ntheorem double (n : ℕ)\n    (h : n = 2) : n + n = 4 := {PROOF}\n\nend N\n\n"
        "#print axioms N.double\n"
    )


def test_each_split_of_the_file_is_asked_and_judged(stub: StubServer) -> None:
    config = config_of(stub, eval=EvalConfig(size=2))
    assert validate(config) == []
    train, held = build_task(config), build_task(config, "eval")
    assert (len(train), len(held)) == (3, 2)
    assert [difficulty_of(train, index) for index in range(3)] == ["mathd_numbertheory", "imo", "amc12"]
    assert [difficulty_of(held, index) for index in range(2)] == ["aime", "mathd_algebra"]
    content = train.prompt(0).messages[0]["content"]
    assert "```lean4\nimport Mathlib\n" in content
    assert content.endswith(":= by\n```")
    statement = train.prompt(0).reference
    assert reward(train, 0, behind(statement.claim, PROOF)) == 1.0
    assert reward(train, 0, behind(statement.claim, "by\n  ring")) == 0.0
    assert f"{statement.claim} := {PROOF}" in stub.programs[-2]


def test_a_cheat_that_would_reach_lean_fails_on_its_axioms(stub: StubServer) -> None:
    for proof in ("by sorry", "by native_decide"):
        program = Program(STATEMENT, proof, namespace="N")
        (result,) = stub.answer({"codes": [{"custom_id": "1", "proof": program.text}], "timeout": 1})["results"]
        assert not program.is_proved(result["response"]["messages"])


def test_a_proof_that_takes_too_long_is_wrong_and_a_server_that_fails_gives_no_verdict(stub: StubServer) -> None:
    task = build_task(config_of(stub))
    stub.error = "Lean REPL command timed out in 60 seconds"
    assert reward(task, 0, PROOF) == 0.0
    stub.error = "Lean REPL ended"
    with pytest.raises(RuntimeError, match="failed: Lean REPL ended"):
        reward(task, 0, PROOF)


def test_a_group_is_judged_in_a_worker_of_its_own(stub: StubServer) -> None:
    async def score() -> list[Any]:
        async with RewardRunner(config_of(stub), timeout_s=20.0) as runner:
            return await runner.score(0, [PROOF, "by ring", "by sorry"])

    outcomes = asyncio.run(score())
    assert [outcome.reward and outcome.reward.value for outcome in outcomes] == [1.0, 0.0, 0.0]


def test_a_key_is_taken_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    stub = StubServer(key="secret")
    try:
        with pytest.raises(TaskError, match=r"status 401: .*its key is read from LEAN_SERVER_API_KEY"):
            validate(config_of(stub))
        monkeypatch.setenv("LEAN_SERVER_API_KEY", "secret")
        assert validate(config_of(stub)) == []
    finally:
        stub.close()


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ({}, "expected either project, .* got neither"),
        ({"server": "http://x", "project": "/x"}, "got both"),
        ({"servers": "http://x"}, "servers is unknown; nearest: server"),
        ({"server": "localhost:8000"}, "expected http://HOST:PORT"),
        ({"server": "http://127.0.0.1:9"}, "whose checker does not work: the Lean server .* cannot be asked"),
        ({"project": "/nowhere"}, "there is no lake on the PATH"),
    ],
)
def test_a_checker_that_is_not_there_is_refused(
    params: dict[str, Any], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(TaskError, match=text):
        validate(TaskConfig(name="minif2f", path=str(MINIF2F), params=params))


def test_a_server_that_accepts_nothing_or_speaks_otherwise_is_refused(stub: StubServer) -> None:
    stub.proofs.clear()
    with pytest.raises(TaskError, match="does not accept a proof of 1 \\+ 1 = 2"):
        validate(config_of(stub))
    with pytest.raises(TaskError, match="answered with status 404"):
        validate(config_of(stub, params={"server": f"{stub.url}/api"}))


# Plays `lake env lean --json FILE`: the stub's verdict, as Lean prints it.
LAKE = """#!{python}
import json, subprocess, sys
from tasks.lean.stub import StubServer
assert sys.argv[1:4] == ["env", "lean", "--json"], sys.argv
program = open(sys.argv[4]).read()
if "sleep" in program:
    # As lake does, Lean runs in a process of its own.
    command = [sys.executable, "-c", "import time; time.sleep(60)", {marker!r}]
    sys.exit(subprocess.run(command).returncode)
if "crash" in program:
    sys.exit("lake: out of memory")
stub = StubServer([{proof!r}])
messages = stub.elaborate(program)
stub.close()
print("info: a line of lake's own")
for severity, data in messages:
    print(json.dumps({{"severity": severity, "pos": {{"line": 1, "column": 0}}, "data": data}}))
sys.exit(any(severity == "error" for severity, _ in messages))
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    lake = tmp_path / "bin" / "lake"
    lake.parent.mkdir()
    lake.write_text(LAKE.format(python=sys.executable, proof=PROOF, marker=str(tmp_path)))
    lake.chmod(lake.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{lake.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(entry or os.getcwd() for entry in sys.path))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "lakefile.toml").write_text('name = "x"')
    return folder


def test_a_local_lean_judges_alike(project: Path) -> None:
    params = {"project": str(project), "timeout_s": 60}
    task = build_task(TaskConfig(name="minif2f", path=str(MINIF2F), params=params))
    assert reward(task, 0, PROOF) == 1.0
    assert reward(task, 0, "by ring") == 0.0
    with pytest.raises(RuntimeError, match="ended with status 1: lake: out of memory"):
        reward(task, 0, "by crash")


def test_a_local_lean_that_takes_too_long_is_ended(project: Path) -> None:
    params = {"project": str(project), "timeout_s": 3}
    task = build_task(TaskConfig(name="minif2f", path=str(MINIF2F), params=params))
    begin = time.monotonic()
    assert reward(task, 0, "by sleep") == 0.0
    assert time.monotonic() - begin < 50, "lake sleeps for a minute"
    assert_nothing_left(project.parent)


WORKER = """
import sys
from pathlib import Path
from tasks.lean.project import LeanProject
LeanProject(sys.argv[1], 60.0).run("sleep")
"""


@pytest.mark.parametrize("ends", [subprocess.Popen.kill, lambda worker: os.killpg(worker.pid, signal.SIGKILL)])
def test_a_local_lean_ends_with_its_worker(project: Path, ends: Callable[[subprocess.Popen[bytes]], None]) -> None:
    with subprocess.Popen([sys.executable, "-c", WORKER, str(project)], start_new_session=True) as worker:
        wait_until(lambda: bool(leans(project.parent)))
        assert list((project.parent / "tmp").iterdir())
        ends(worker)
    assert_nothing_left(project.parent)


def test_a_local_lean_has_no_more_processor_time_than_it_may_need(project: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", WORKER, str(project)]) as worker:
        wait_until(lambda: bool(leans(project.parent)))
        limit, _ = resource.prlimit(leans(project.parent)[0].pid, resource.RLIMIT_CPU)
        assert limit == 60 * (os.cpu_count() or 1)
        worker.kill()


def leans(folder: Path) -> list[psutil.Process]:
    """The processes that play Lean, and those above them."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            command = process.cmdline()
            if command and command[-1] == str(folder):
                found.append(process)
    return found


def assert_nothing_left(folder: Path) -> None:
    wait_until(lambda: not leans(folder) and not list((folder / "tmp").iterdir()))


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_folder_that_is_no_project_is_refused(project: Path) -> None:
    for folder, text in ((project.parent, "no lakefile.toml or lakefile.lean"), (Path("here"), "an absolute folder")):
        with pytest.raises(TaskError, match=text):
            validate(TaskConfig(name="minif2f", path=str(MINIF2F), params={"project": str(folder)}))


def test_the_command_line_refuses_a_missing_checker_with_status_2(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        f'[model]\npath = "tiny"\n[task]\nname = "minif2f"\npath = {json.dumps(str(MINIF2F))}\n'
        '[task.params]\nserver = "http://127.0.0.1:9"\n[actors]\nreward_timeout_s = 180\n'
    )
    command = [sys.executable, "-m", "rapid.cli", "train", str(recipe), "--dry-run"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert "whose checker does not work: the Lean server http://127.0.0.1:9 cannot be asked" in done.stderr
