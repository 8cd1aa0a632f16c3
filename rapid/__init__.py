"""The user's door: command line, run configuration, and the launcher that places the parts on Ray."""

__version__ = "0.1.0"
