"""What the command line turns into one clear message and exit status 2."""


class UsageError(Exception):
    """The user asked for something that cannot be: nothing was started and nothing was lost."""


class ConfigError(UsageError):
    """A configuration that cannot work. Each problem names field, value, expectation and remedy."""

    def __init__(self, source: str, problems: list[str]) -> None:
        super().__init__(f"{source} cannot be used:\n" + "\n".join(f"  {problem}" for problem in problems))
        self.problems = problems


class RunFailedError(Exception):
    """A run began and could not be brought to its end; what it did until then is in its folder."""
