"""Log files: one for each process, so that the terminal is free for the live view."""

from __future__ import annotations

import faulthandler
import json
import logging
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

_FORMAT = "%(asctime)s.%(msecs)03d %(levelname).1s %(name)s: %(message)s"
_TIME = "%m-%d %H:%M:%S"
# At INFO these tell of every font, lock or connection and nothing of the run.
_TALKATIVE = ("asyncio", "filelock", "fsspec", "httpcore", "httpx", "matplotlib", "PIL", "urllib3", "wandb")


class _JsonFormatter(logging.Formatter):
    """One JSON object a line; times in UTC."""

    def __init__(self, part: str) -> None:
        super().__init__()
        self._part = part

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "part": self._part,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def setup_logging(part: str, run_dir: Path | str, level: str = "INFO", form: str = "text") -> Path:
    """Send this process's logs, warnings, uncaught exceptions and fatal signals to `run_dir/logs/PART.log`.

    A second call moves them. What goes through handlers that others set is left alone.

    Args:
        part: "hub", "learner-0", "actor-1", "launcher".
        run_dir: the run's folder.
        level: "DEBUG", "INFO", "WARNING" or "ERROR".
        form: "text", or "json" for one JSON object a line. The stacks that a fatal signal leaves are text in both.

    Returns:
        The file's path.
    """
    path = Path(run_dir) / "logs" / f"{part}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = _RunLogHandler(path, encoding="utf-8")
    handler.setFormatter(_JsonFormatter(part) if form == "json" else logging.Formatter(_FORMAT, _TIME))
    root = logging.getLogger()
    for old in [one for one in root.handlers if isinstance(one, _RunLogHandler)]:
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    root.setLevel(level)
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    logging.captureWarnings(True)
    if handler.stream is not None:
        faulthandler.enable(handler.stream)
    sys.excepthook = _log_uncaught
    threading.excepthook = _log_uncaught_in_thread
    return path


class _RunLogHandler(logging.FileHandler):
    """The handler that is ours, so that a second set-up finds it."""


def _log_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if not issubclass(kind, KeyboardInterrupt):
        logging.getLogger("uncaught").critical("the process ends", exc_info=(kind, error, trace))
    sys.__excepthook__(kind, error, trace)


def _log_uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
    name = args.thread.name if args.thread is not None else "unknown"
    if args.exc_value is not None and not issubclass(args.exc_type, SystemExit):
        trace = (args.exc_type, args.exc_value, args.exc_traceback)
        logging.getLogger("uncaught").critical("thread %s ends", name, exc_info=trace)
