"""A sandbox for programs that a model wrote. docs/sandbox.md says what it contains, and by which means.

with Sandbox(Limits(time_s=3.0)) as sandbox:
    suite = build_suite("assert double(4) == 8", names=("double",))
    sandbox.check("def double(x): return 2 * x", suite).passed
"""

from __future__ import annotations

from tasks.sandbox.box.jail import Limits
from tasks.sandbox.sandbox import Sandbox, SandboxError, Verdict, try_sandbox
from tasks.sandbox.suite import Suite, build_suite
from tasks.sandbox.ways import Way, WayName, choose

__all__ = [
    "Limits",
    "Sandbox",
    "SandboxError",
    "Suite",
    "Verdict",
    "Way",
    "WayName",
    "build_suite",
    "choose",
    "try_sandbox",
]
