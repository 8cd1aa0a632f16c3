"""What the command line turns into one clear message: exit status 2 for UsageError, 1 or 130 for the others."""

import errno


class UsageError(Exception):
    """The user asked for something that cannot be: nothing was started and nothing was lost."""


class ConfigError(UsageError):
    """A configuration that cannot work. Each problem names field, value, expectation and remedy."""

    def __init__(self, source: str, problems: list[str]) -> None:
        super().__init__(f"{source} cannot be used:\n" + "\n".join(f"  {problem}" for problem in problems))
        self.problems = problems


class StartInterruptedError(Exception):
    """Ctrl-C before the run began: nothing was trained, and the same command may be given again."""

    def __init__(self, what: str) -> None:
        super().__init__(f"interrupted while {what}: nothing was trained, and the same command may be given again")


class RunFailedError(Exception):
    """A run began and could not be brought to its end; what it did until then is in its folder."""


def is_disk_full(error: OSError) -> bool:
    """Whether there is no space left, on the disk or within a quota."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)
