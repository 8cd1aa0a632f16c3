"""What the zygote imports, so that no check has to.

Of these every way of sandboxing has the same. Beyond them bubblewrap shows the rest of the standard library; without it
no file can be opened, so that an import of anything else fails.
"""

from __future__ import annotations

MODULES = (
    "_strptime", "abc", "argparse", "array", "ast", "base64", "binascii", "bisect", "builtins", "calendar", "cmath",
    "codecs", "collections", "collections.abc", "colorsys", "concurrent.futures", "contextlib", "copy", "csv",
    "dataclasses", "datetime", "decimal", "difflib", "encodings.ascii", "encodings.hex_codec", "encodings.idna",
    "encodings.latin_1", "encodings.rot_13", "encodings.utf_16", "enum", "fractions", "functools", "gc", "glob",
    "hashlib", "heapq", "html", "inspect", "io", "itertools", "json", "keyword", "locale", "logging", "math", "mmap",
    "multiprocessing", "numbers", "numpy", "numpy.linalg", "numpy.random", "operator", "os", "os.path", "pathlib",
    "platform", "pprint", "queue", "random", "re", "reprlib", "secrets", "select", "shlex", "shutil", "signal",
    "socket", "statistics", "string", "struct", "subprocess", "sys", "tempfile", "textwrap", "threading", "time",
    "timeit", "token", "tokenize", "traceback", "types", "typing", "unicodedata", "unittest", "urllib.parse", "uuid",
    "warnings", "weakref", "zlib",
)  # fmt: skip
