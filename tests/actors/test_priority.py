from __future__ import annotations

import json
import os
import subprocess
import sys

_PROGRAM = """
import json, os, subprocess, threading, time
from actors.priority import give_way

os.nice(5)
if os.getuid() == 0:
    os.setuid(65534)
threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
child = subprocess.Popen(["sleep", "60"])
give_way(7)
threads = [os.getpriority(os.PRIO_PROCESS, int(name)) for name in os.listdir("/proc/self/task")]
print(json.dumps({"threads": threads, "child": os.getpriority(os.PRIO_PROCESS, child.pid)}))
child.kill()
"""


def test_all_threads_and_children_give_way_without_being_root() -> None:
    said = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, timeout=60, check=True)
    told = json.loads(said.stdout)
    assert len(told["threads"]) >= 2
    # On top of what the test itself has; Linux knows none above 19.
    expected = min(19, os.getpriority(os.PRIO_PROCESS, 0) + 5 + 7)
    assert set(told["threads"]) == {expected}
    assert told["child"] == expected
