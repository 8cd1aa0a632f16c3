from __future__ import annotations

import json
import logging
import subprocess
import sys
from datetime import datetime
from pathlib import Path

ROOT = Path(__file__).parents[2]
# In a process of its own: logging, excepthook and faulthandler belong to the whole process.
_PROGRAM = """
import logging, sys, threading, warnings
from telemetry.logs import setup_logging
path = setup_logging("actor-0", sys.argv[1], "INFO")
log = logging.getLogger("actors.rollout")
log.debug("not this")
log.info("leased %d groups", 3)
warnings.warn("beware")
logging.getLogger("urllib3").info("not this")
thread = threading.Thread(target=lambda: 1 / 0, name="fetcher")
thread.start()
thread.join()
setup_logging("actor-1", sys.argv[1], "DEBUG")
log.debug("moved")
raise RuntimeError("the end")
"""


def test_logs_warnings_and_the_last_words_of_a_process_go_to_its_file(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    first, second = ((tmp_path / "logs" / f"actor-{i}.log").read_text() for i in (0, 1))
    assert "I actors.rollout: leased 3 groups" in first
    assert "beware" in first
    assert "thread fetcher ends" in first
    assert "ZeroDivisionError" in first
    assert "not this" not in first
    assert "moved" not in first
    assert "D actors.rollout: moved" in second
    assert "RuntimeError: the end" in second
    assert done.stdout == ""
    assert "leased" not in done.stderr
    assert "RuntimeError: the end" in done.stderr


_JSON_PROGRAM = """
import logging, sys
from telemetry.logs import setup_logging
setup_logging("hub", sys.argv[1], "INFO", "json")
logging.getLogger("buffer.service").info("leased %d\\ngroups", 3)
1 / 0
"""


def test_json_logs_are_one_object_a_line(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-c", _JSON_PROGRAM, str(tmp_path)], cwd=ROOT, capture_output=True, timeout=60, check=False
    )
    lines = [json.loads(line) for line in (tmp_path / "logs" / "hub.log").read_text().splitlines()]
    first, last = lines
    assert (first["level"], first["part"], first["logger"]) == ("INFO", "hub", "buffer.service")
    assert first["message"] == "leased 3\ngroups"
    assert datetime.fromisoformat(first["time"]).utcoffset() is not None
    assert (last["level"], "ZeroDivisionError" in last["exception"]) == ("CRITICAL", True)


def test_importing_the_module_changes_no_logger() -> None:
    assert not any(type(handler).__name__ == "_RunLogHandler" for handler in logging.getLogger().handlers)
