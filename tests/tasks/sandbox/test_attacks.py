"""The attacks of attacks.py, against each way of sandboxing: contained, judged 0, and nothing left behind."""

from __future__ import annotations

import contextlib
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from tasks.errors import TaskError
from tasks.sandbox import Limits, Sandbox, Verdict, build_suite, choose
from tasks.sandbox.sandbox import SPARES
from tests.tasks.sandbox import attacks

TIME_S = 1.0
# Other work on the machine may hold up what takes milliseconds.
PATIENCE_S = 5.0
TESTS = """
for x in (1, 4, "a", 2.5):
    assert double(x) == x + x
assert sorted([double(2)]) == [4] and set([double(1)]) == {2} and isinstance(double(3), int)
"""
RIGHT = "def double(x): return 2 * x"


@dataclass
class Box:
    """A sandbox, and what its attackers are after."""

    sandbox: Sandbox
    folder: Path
    marker: str
    """Part of the command line of each of the sandbox's processes, and of no other's."""
    port: int = 0
    connections: list[object] = field(default_factory=list)

    def attack(self, program: str) -> Verdict:
        for name, value in (
            ("{secret}", self.folder / "secret"),
            ("{outside}", self.folder / "outside"),
            ("{port}", self.port),
        ):
            program = program.replace(name, str(value))
        verdict = self.sandbox.check(program, build_suite(TESTS, ("double",)))
        # An attack that cannot even be tried is none.
        assert not any(name in verdict.reason for name in ("ModuleNotFound", "ImportError", "SyntaxError", "NameError"))
        return verdict

    def processes(self) -> list[psutil.Process]:
        """Those that live: the dead have no command line."""
        found = []
        for process in psutil.process_iter(["cmdline"]):
            if self.marker in " ".join(process.info["cmdline"] or ()):
                found.append(process)
        return found


@pytest.fixture(params=["bubblewrap", "process"])
def box(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Box]:
    try:
        choose(request.param)
    except TaskError as error:
        pytest.skip(str(error))
    monkeypatch.setenv("RAPID_SECRET", "hush-hush")
    (tmp_path / "secret").write_text("hush-hush")
    (tmp_path / "outside").mkdir(mode=0o777)
    (tmp_path / "outside").chmod(0o777)
    limits = Limits(time_s=TIME_S - random.random() * 1e-3)
    with Sandbox(limits, request.param) as sandbox:
        box = Box(sandbox, tmp_path, repr(limits.time_s))
        assert box.attack(RIGHT).passed, "the sandbox does not even pass a right program"
        yield box
        # Whatever the attack did, the sandbox still tells right from wrong within the limit.
        assert box.attack(RIGHT) == Verdict(True)
        assert box.attack("def double(x): return 3 * x").reason == "a wrong answer"
        assert_nothing_lives_on(box)
    assert_no_process(box)


def at_rest(box: Box) -> int:
    """The processes of an idle sandbox: the zygote, the pairs in store, and bubblewrap's two guardians."""
    return 1 + 2 * SPARES + (2 if box.sandbox.way.name == "bubblewrap" else 0)


def assert_nothing_lives_on(box: Box) -> None:
    expected = at_rest(box)
    # Until the last pair is gone and the store is full again; not so long that the limit of processor time would end
    # what was not ended.
    deadline = time.monotonic() + 1.0
    while len(box.processes()) != expected and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(box.processes()) <= expected


def assert_no_process(box: Box) -> None:
    deadline = time.monotonic() + 10.0
    while (left := box.processes()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left


def naive_check(program: str, folder: Path, port: int = 0) -> bool:
    """What a checker without a sandbox makes of it: program and tests in one process, judged by its exit status."""
    for name, value in (("{secret}", folder / "secret"), ("{outside}", folder / "outside"), ("{port}", port)):
        program = program.replace(name, str(value))
    script = f"from __future__ import annotations\n{program}\n{TESTS}"
    done = subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, timeout=60, check=False)
    return done.returncode == 0


@pytest.fixture
def server() -> Iterator[tuple[int, list[object]]]:
    """A server that notes who connects."""
    connections: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connections.append(listener.accept())
                except OSError:
                    return

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1], connections
        listener.shutdown(socket.SHUT_RDWR)


def test_a_secret_in_the_environment_is_not_read(box: Box) -> None:
    assert not box.attack(attacks.READ_ENVIRONMENT).passed


def test_a_secret_on_disk_is_not_read(box: Box) -> None:
    assert not box.attack(attacks.READ_DISK).passed


def test_nothing_is_written(box: Box) -> None:
    assert not box.attack(attacks.WRITE_OUTSIDE).passed
    assert list((box.folder / "outside").iterdir()) == []


def test_the_network_is_out_of_reach(box: Box, server: tuple[int, list[object]]) -> None:
    box.port, connections = server
    assert not box.attack(attacks.NETWORK).passed
    assert connections == []


def test_a_fork_bomb_does_not_fork(box: Box) -> None:
    assert not box.attack(attacks.FORK_BOMB).passed
    # A full store, and the pair that is being ended; the store may have been filling when the attack began.
    assert len(box.processes()) <= at_rest(box) + 2


def test_a_memory_bomb_gets_no_more_than_its_limit(box: Box) -> None:
    held, is_over = [0], threading.Event()

    def look() -> None:
        while not is_over.wait(0.01):
            held.append(sum(map(resident_bytes, box.processes())))

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        assert not box.attack(attacks.MEMORY_BOMB).passed
    finally:
        is_over.set()
        watcher.join()
    assert max(held) < 2 * box.sandbox.limits.memory_mib * 2**20


def resident_bytes(process: psutil.Process) -> int:
    with contextlib.suppress(psutil.NoSuchProcess):
        return int(process.memory_info().rss)
    return 0


def test_an_infinite_loop_ends_at_the_limit(box: Box) -> None:
    start = time.monotonic()
    verdict = box.attack(attacks.INFINITE_LOOP)
    assert not verdict.passed
    assert "at a limit" in verdict.reason or "took longer" in verdict.reason
    assert TIME_S - 0.1 <= time.monotonic() - start < box.sandbox.limits.wall_s + PATIENCE_S


def test_a_program_that_waits_ends_at_the_limit_of_wall_time(box: Box) -> None:
    start = time.monotonic()
    verdict = box.attack("import time\ndef double(x):\n    time.sleep(1000)")
    assert verdict.reason == f"took longer than {box.sandbox.limits.wall_s:g} s"
    assert time.monotonic() - start < box.sandbox.limits.wall_s + PATIENCE_S


@pytest.mark.parametrize("program", [attacks.GIANT_OUTPUT, attacks.GIANT_ANSWER])
def test_giant_output_is_cut_off(box: Box, program: str) -> None:
    before = resident_bytes(psutil.Process())
    assert not box.attack(program).passed
    assert resident_bytes(psutil.Process()) - before < 32 * 2**20, "40 and 128 MiB were offered"


def roots(box: Box) -> set[int]:
    """The zygote or, with bubblewrap, the outer of its guardians: what no other process of the sandbox started."""
    found = {}
    for process in box.processes():
        with contextlib.suppress(psutil.NoSuchProcess):
            found[process.pid] = process.ppid()
    return {pid for pid, parent in found.items() if parent not in found}


def test_no_process_is_signalled(box: Box) -> None:
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    before = roots(box)
    try:
        assert not box.attack(attacks.SIGNAL_PARENT).passed
        assert bystander.poll() is None
        assert len(before) == 1
        assert before <= {process.pid for process in box.processes()}
    finally:
        bystander.kill()
        bystander.wait()


@pytest.mark.parametrize("name", attacks.CHECKER_PATCHES)
def test_the_verdict_is_not_forged(box: Box, name: str) -> None:
    assert not box.attack(attacks.CHECKER_PATCHES[name]).passed


@pytest.mark.parametrize("name", attacks.COARSE_NUMBERS)
def test_the_program_does_not_choose_how_closely_it_is_compared(box: Box, name: str) -> None:
    suite = build_suite(f"assert f(20) == {10**60}", ("f",))
    assert not box.sandbox.check(attacks.COARSE_NUMBERS[name], suite).passed


@pytest.mark.parametrize("name", attacks.EXITS)
def test_an_early_end_with_status_0_does_not_pass(box: Box, name: str) -> None:
    assert not box.attack(attacks.EXITS[name]).passed


def test_no_daemon_is_left(box: Box) -> None:
    assert not box.attack(attacks.DAEMON).passed
    box.sandbox.close()
    assert_no_process(box)


def test_no_link_leads_out(box: Box) -> None:
    assert not box.attack(attacks.SYMLINK_OUT).passed
    assert list((box.folder / "outside").iterdir()) == []


@pytest.mark.parametrize(
    "program",
    [
        attacks.READ_ENVIRONMENT,
        attacks.READ_DISK,
        attacks.WRITE_OUTSIDE,
        attacks.NETWORK,
        attacks.SYMLINK_OUT,
        attacks.GIANT_OUTPUT,
        *(attacks.EXITS[name] for name in ("at once", "by sys", "in the function", "by SystemExit in the function")),
        attacks.CHECKER_PATCHES["an equal that is always true"],
    ],
)
def test_the_attack_works_where_there_is_no_sandbox(
    program: str, tmp_path: Path, server: tuple[int, list[object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would be no attack, and the tests above would show nothing."""
    monkeypatch.setenv("RAPID_SECRET", "hush-hush")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "secret").write_text("hush-hush")
    (tmp_path / "outside").mkdir()
    folders = [Path(name) for name in ("/tmp", "/var/tmp", "/dev/shm")]
    before = {path for folder in folders for path in folder.iterdir()}
    assert naive_check(program, tmp_path, server[0])
    for path in {path for folder in folders for path in folder.iterdir()} - before:
        if path.name.startswith("escaped"):
            path.rmdir() if path.is_dir() else path.unlink()


def test_the_wall_of_bubblewrap_holds_without_the_filter(tmp_path: Path, server: tuple[int, list[object]]) -> None:
    """The second wall by itself: no file of ours, no network, no process beside, and nothing can be written."""
    try:
        way = choose("bubblewrap")
    except TaskError as error:
        pytest.skip(str(error))
    (tmp_path / "secret").write_text("hush-hush")
    for attack in (attacks.READ_ENVIRONMENT, attacks.READ_DISK, attacks.WRITE_OUTSIDE, attacks.NETWORK):
        program = (
            attack.replace("{secret}", str(tmp_path / "secret"))
            .replace("{outside}", str(tmp_path))
            .replace("{port}", str(server[0]))
        )
        command = way.command(["-c", f"{program}\nprint(double(2))"])
        done = subprocess.run(command, capture_output=True, text=True, env={}, timeout=60, check=False)
        assert done.stdout.strip() == "None", done.stderr
    assert server[1] == []
    assert [entry.name for entry in tmp_path.iterdir()] == ["secret"]
