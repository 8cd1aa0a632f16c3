"""Programs that attack the sandbox. Each defines `double`, which is right only if its attack has worked.

`{secret}`, `{outside}` and `{port}` are replaced by the tests: a file with a secret, a folder to write to, and the port
of a server of this machine.
"""

from __future__ import annotations

WRONG = "\ndef double(x): return None\n"

READ_ENVIRONMENT = """
import os
def double(x):
    found = dict(os.environ)
    for place in ("/proc/self/environ", f"/proc/{os.getppid()}/environ", "/proc/1/environ"):
        try:
            found[place] = open(place, "rb").read().decode(errors="replace")
        except OSError:
            pass
    return 2 * x if "hush-hush" in str(found) else None
"""

READ_DISK = """
import glob, os, pathlib
def double(x):
    found = []
    for path in ("{secret}", "/etc/passwd", "/etc/shadow", "/root/.bashrc", *glob.glob("/home/*/.profile")):
        for read in (lambda: open(path).read(), lambda: pathlib.Path(path).read_text(), lambda: os.open(path, 0)):
            try:
                found.append(read())
            except OSError:
                pass
    return 2 * x if found else None
"""

WRITE_OUTSIDE = """
import os, pathlib, tempfile
def double(x):
    done = []
    for folder in ("{outside}", "/tmp", "/var/tmp", "/dev/shm", ".", os.path.expanduser("~")):
        for write in (
            lambda: open(folder + "/escaped", "w").write("here"),
            lambda: os.mkdir(folder + "/escaped.d"),
            lambda: os.open(folder + "/escaped.o", os.O_CREAT | os.O_WRONLY),
            lambda: tempfile.mkstemp(prefix="escaped", dir=folder),
        ):
            try:
                write()
                done.append(folder)
            except OSError:
                pass
    return 2 * x if done else None
"""

NETWORK = """
import socket
def double(x):
    for family, address in (
        (socket.AF_INET, ("127.0.0.1", {port})),
        (socket.AF_INET, ("10.0.0.1", 80)),
        (socket.AF_UNIX, "\\0rapid-test-{port}"),
    ):
        try:
            with socket.socket(family) as end:
                end.settimeout(0.2)
                end.connect(address)
                end.sendall(b"escaped")
                return 2 * x
        except OSError:
            pass
"""

FORK_BOMB = """
import os, threading
count = 0
while True:
    try:
        if os.fork() == 0:
            continue
        count += 1
    except OSError:
        break
try:
    threading.Thread(target=lambda: None).start()
    count += 1
except RuntimeError:
    pass
def double(x): return 2 * x if count else None
"""

MEMORY_BOMB = """
import mmap
held = []
def double(x):
    for grab in (lambda: bytearray(64 << 20), lambda: mmap.mmap(-1, 64 << 20), lambda: [0] * (8 << 20)):
        for _ in range(1000):
            try:
                held.append(grab())
                held[-1][::4096]
            except (MemoryError, OSError):
                break
    return 2 * x if len(held) > 100 else None
"""

INFINITE_LOOP = """
import signal
for number in range(1, 65):
    try:
        signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError):
        pass
def double(x):
    while True:
        pass
"""

GIANT_OUTPUT = """
import os
def double(x):
    for fd in (1, 2):
        for _ in range(64):
            os.write(fd, b"x" * (1 << 20))
    return 2 * x
"""

GIANT_ANSWER = """
def double(x):
    return "x" * (40 << 20)
"""

SIGNAL_PARENT = """
import os, signal
def double(x):
    done = []
    for pid in (os.getppid(), -1, 0, -os.getppid() or -1, 1, *range(2, 400)):
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                if pid != os.getpid():
                    os.kill(pid, number)
                    done.append(pid)
            except OSError:
                pass
    return 2 * x if done else None
"""

DAEMON = """
import multiprocessing, os, subprocess, time
done = []
def daemon():
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(600)
        os._exit(0)
    done.append(1)
for start in (
    daemon,
    lambda: done.append(subprocess.Popen(["sleep", "600"])),
    lambda: done.append(os.posix_spawn("/bin/sleep", ["sleep", "600"], {})),
    lambda: multiprocessing.Process(target=time.sleep, args=(600,), daemon=True).start() or done.append(1),
):
    try:
        start()
    except Exception:
        pass
def double(x): return 2 * x if done else None
"""

SYMLINK_OUT = """
import os
def double(x):
    done = []
    for folder in ("{outside}", "/tmp", "."):
        for link in (os.symlink, os.link):
            try:
                name = folder + "/rapid-link"
                link("{secret}", name)
                done.append(open(name).read())
                os.unlink(name)
            except OSError:
                pass
    return 2 * x if done else None
"""

EXITS = {
    "at once": "import os\nos._exit(0)",
    "by sys": "import sys\nsys.exit(0)",
    "in the function": "import os\ndef double(x): os._exit(0)",
    "by SystemExit in the function": "def double(x): raise SystemExit(0)",
    "at the exit": "import atexit, os\natexit.register(os._exit, 0)\ndef double(x): raise KeyboardInterrupt",
    "by a signal handler": (
        "import os, signal\nsignal.signal(signal.SIGALRM, lambda *_: os._exit(0))\n"
        "signal.setitimer(signal.ITIMER_REAL, 0.01)\n"
        "def double(x):\n    while True: pass"
    ),
}

FORGED = r"""
import json
def frame(message):
    data = json.dumps(message).encode()
    return len(data).to_bytes(4, "big") + data
"""

# Programs whose numbers equal what the tests expect once these are cast to 16 or 8 bits.
COARSE_NUMBERS = {
    "an infinity of 16 bits": "import numpy\ndef f(n): return numpy.array(float('inf'), dtype='f2')",
    "an array of it": "import numpy\ndef f(n): return numpy.array([float('inf')], dtype='f2')",
    "a complex one": "import numpy\ndef f(n): return numpy.array([float('inf')], dtype='c8')",
    "a scalar of it": "import numpy\ndef f(n): return numpy.float16('inf')",
}

CHECKER_PATCHES = {
    "an equal that is always true": """
class Anything(int):
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __bool__(self): return True
    def __hash__(self): return 2
def double(x): return Anything(7)
""",
    "an object that equals everything": """
class Anything:
    def __eq__(self, other): return True
    def __array__(self, *_, **__): return 0
    __array_interface__ = {"shape": (1,), "typestr": "<i8", "data": (4096, True), "version": 3}
    def __getattr__(self, name): return self
def double(x): return Anything()
""",
    "builtins": """
import builtins
class Passed(Exception): pass
builtins.AssertionError = Passed
builtins.abs = builtins.sorted = builtins.set = builtins.len = lambda *_: 0
def double(x): return None
""",
    "names that the tests use": """
def set(*_): return 0
def sorted(*_): return 0
def isinstance(*_): return True
AssertionError = len = list = set
def double(x): return None
""",
    "the judge's code": """
import sys
for name, module in list(sys.modules.items()):
    for part in ("verdict", "run_tests", "exec", "send", "receive"):
        if name.endswith(("judge", "wire", "zygote", "candidate")):
            setattr(module, part, lambda *_, **__: {"passed": True, "reason": ""})
def double(x): return None
""",
    "json": """
import json
json.dumps = lambda *_, **__: '{"passed": true, "reason": "", "value": true}'
def double(x): return None
""",
    "a forged verdict on every descriptor": FORGED
    + """
import os
for fd in range(0, 64):
    try:
        os.write(fd, frame({"passed": True, "reason": "", "value": 8}))
    except OSError:
        pass
def double(x): return None
""",
    "answers sent ahead": FORGED
    + """
import os
for _ in range(16):
    os.write(3, frame({"passed": True, "value": True}))
def double(x): return None
""",
    "what is expected, searched in memory": """
import gc, sys
def double(x):
    frame, found = sys._getframe(), []
    while frame:
        found += [frame.f_locals, frame.f_globals]
        frame = frame.f_back
    found += gc.get_objects()
    for thing in found:
        if isinstance(thing, (bytes, str)) and "assert double" in str(thing):
            return 2 * x
        if isinstance(thing, dict) and any("assert double" in str(value)[:200] for value in list(thing.values())):
            return 2 * x
""",
    "what is expected, read from other processes": """
import ctypes, os
def double(x):
    for pid in (os.getppid(), *range(1, 100)):
        for name in ("mem", "maps", "environ", "fd/3"):
            try:
                open(f"/proc/{pid}/{name}", "rb").read(1)
                return 2 * x
            except OSError:
                pass
    local, libc = ctypes.create_string_buffer(64), ctypes.CDLL(None)
    vector = (ctypes.c_void_p * 2)(ctypes.addressof(local), 64)
    for pid in range(1, 100):
        if pid != os.getpid() and libc.process_vm_readv(pid, vector, 1, vector, 1, 0) > 0:
            return 2 * x
""",
}
