"""Lean behind HTTP: the protocol of the Kimina Lean server (Santos et al. 2025, arXiv 2504.21230).

    POST /verify   {"codes": [{"custom_id": "…", "proof": "…"}], "timeout": 60, "infotree_type": null}
    200            {"results": [{"custom_id": "…", "error": null, "response": {"env": 0, "messages": [
                       {"severity": "info", "pos": {…}, "endPos": {…}, "data": "…"}], "sorries": […], "time": 0.1}}]}

`error` is set instead of `response` when the server gave up, such as after `timeout` seconds; a `response` with
`message` says that the REPL could not read its command. Both versions of the server answer this address.
"""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from typing import Any

# The name under which the server itself knows its key.
KEY_VARIABLE = "LEAN_SERVER_API_KEY"
# The server waits for a free REPL before its own limit begins.
QUEUE_S = 60.0


class LeanServer:
    """Asks a server; any number of threads may ask at once."""

    def __init__(self, url: str, timeout_s: float) -> None:
        self._url = url.rstrip("/") + "/verify"
        self._timeout_s = timeout_s
        self.name = f"the Lean server {url}"

    def run(self, program: str) -> list[dict[str, Any]] | None:
        """Lean's messages about a program, None if it took too long.

        Raises RuntimeError when the server cannot be reached, refuses, or answers something else.
        """
        body = {
            "codes": [{"custom_id": "rapid", "proof": program}],
            "timeout": max(1, round(self._timeout_s)),
            "infotree_type": None,
        }
        return read_result(self._post(body), self.name)

    def _post(self, body: dict[str, Any]) -> Any:
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get(KEY_VARIABLE):
            headers["Authorization"] = f"Bearer {key}"
        request = urllib.request.Request(self._url, json.dumps(body).encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=self._timeout_s + QUEUE_S) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            said = error.read(300).decode("utf-8", "replace")
            hint = f"; its key is read from {KEY_VARIABLE}" if error.code in (401, 403) else ""
            raise RuntimeError(f"{self.name} answered with status {error.code}: {said}{hint}") from None
        except (OSError, ValueError) as error:
            raise RuntimeError(f"{self.name} cannot be asked: {error}") from None


def read_result(answer: Any, name: str) -> list[dict[str, Any]] | None:
    """The messages of the one result. Raises RuntimeError when the answer has another shape, or reports a failure."""
    try:
        (result,) = answer["results"]
        error, response = result.get("error"), result.get("response") or {}
        messages = response.get("messages") or []
        if error is None and "message" in response:
            error = response["message"]
        if not all(isinstance(message["severity"], str) for message in messages):
            raise TypeError
    except (TypeError, KeyError, ValueError, AttributeError):
        raise RuntimeError(f"{name} answered {str(answer)[:200]!r}; expected results as of /verify") from None
    if error is not None and "timed out" in str(error):
        return None
    if error is not None:
        raise RuntimeError(f"{name} failed: {str(error)[:300]}")
    return list(messages)
