"""What is learned: prompts and rewards.

Imports none of Rapid's other packages and, until a task is built, nothing heavier than pydantic.
"""

from __future__ import annotations

from tasks.build import build_task, check_judging, validate
from tasks.config import EvalConfig, TaskConfig
from tasks.errors import TaskError
from tasks.task import Prompt, Reward, Task, difficulty_of

__all__ = [
    "EvalConfig",
    "Prompt",
    "Reward",
    "Task",
    "TaskConfig",
    "TaskError",
    "build_task",
    "check_judging",
    "difficulty_of",
    "validate",
]
