#!/usr/bin/env python3
"""Exit status 0 if this container's Ray node answers: `rapid-healthy [head]`. Imports little, so that it is quick."""

from __future__ import annotations

import sys
from urllib.request import urlopen

NODE = "http://127.0.0.1:52365/api/local_raylet_healthz"
HEAD = "http://127.0.0.1:8265/api/gcs_healthz"


def main(parts: list[str]) -> int:
    """Ask the node, and with "head" also the cluster's control service."""
    for url in (NODE, HEAD) if "head" in parts else (NODE,):
        try:
            with urlopen(url, timeout=5) as answer:
                text = answer.read().decode(errors="replace")
        except OSError as error:
            print(f"{url}: {error}")
            return 1
        if "success" not in text:
            print(f"{url}: {text[:200]}")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
