"""`rapid doctor` on the sandbox."""

from __future__ import annotations

import pytest

from rapid import doctor
from tasks.sandbox import choose


def test_it_says_which_sandbox_generated_code_will_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    choose.cache_clear()
    try:
        finding = doctor._sandbox()
    finally:
        choose.cache_clear()
    assert finding.found.startswith("bwrap is not installed: a filter of system calls")
    assert "without bubblewrap" in finding.found
    assert finding.remedy == ""  # it works, so that doctor's exit status stays 0


def test_a_machine_without_a_sandbox_is_told_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "sparc64")
    choose.cache_clear()
    try:
        finding = doctor._sandbox()
    finally:
        choose.cache_clear()
    assert "this is linux on sparc64: use another machine" in finding.remedy
