"""What the zygote imports, so that no check has to.

Of these every way of sandboxing has the same. Beyond them bubblewrap shows the rest of the standard library; without it
no file can be opened, so that an import of anything else fails.
"""

from __future__ import annotations

MODULES = (
    "abc", "array", "ast", "base64", "binascii", "bisect", "builtins", "calendar", "cmath", "codecs", "collections",
    "collections.abc", "colorsys", "contextlib", "copy", "csv", "dataclasses", "datetime", "decimal", "difflib",
    "enum", "fractions", "functools", "gc", "hashlib", "heapq", "html", "inspect", "io", "itertools", "json",
    "keyword", "locale", "logging", "math", "numbers", "operator", "os", "os.path", "pprint", "queue", "random", "re",
    "reprlib", "secrets", "shlex", "statistics", "string", "struct", "sys", "textwrap", "threading", "time", "timeit",
    "token", "tokenize", "traceback", "types", "typing", "unicodedata", "unittest", "urllib.parse", "uuid",
    "warnings", "weakref", "zlib", "_strptime", "encodings.idna", "encodings.ascii", "encodings.latin_1",
    "encodings.utf_16", "encodings.hex_codec", "encodings.rot_13", "numpy", "numpy.linalg", "numpy.random",
)  # fmt: skip
