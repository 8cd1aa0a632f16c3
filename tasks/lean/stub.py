"""Plays a Kimina Lean server where there is no Lean: for tests, and for trying a recipe.

It speaks the protocol and knows no mathematics. `StubServer(proofs)` accepts just those proofs, of any theorem; what it
answers to them, and to the usual ways of cheating, is what Lean would.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PROGRAM = re.compile(
    r"(?P<preamble>.*?)\n\nnamespace (?P<namespace>\w+)\n\n"
    r"(?P<claim>(?:theorem|lemma) (?P<name>[^\s({\[:]+).*?) := (?P<proof>by\b.*?)\n\n"
    r"end (?P=namespace)\n\n#print axioms (?P=namespace)\.(?P=name)\n",
    re.DOTALL,
)
STANDARD = "propext, Classical.choice, Quot.sound"
# What a proof by such means rests on besides.
EXTRA_AXIOMS = {"sorry": "sorryAx", "admit": "sorryAx", "sorryAx": "sorryAx", "native_decide": "Lean.ofReduceBool"}


class StubServer:
    """Serves on a free port of this machine until it is closed. Keeps the programs that it was asked about."""

    def __init__(self, proofs: Iterable[str] = (), *, key: str | None = None) -> None:
        """`proofs`: those it accepts, without blanks around them. `key`: what it asks for, if anything."""
        self.proofs = {"by norm_num", *proofs}
        self.key = key
        self.programs: list[str] = []
        self.error: str | None = None
        """What it reports in place of a verdict, once set."""
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._http.serve_forever, name="lean-stub", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def answer(self, body: Any) -> dict[str, Any]:
        """The answer to a request. Raises ValueError for one that the protocol does not know."""
        if set(body) - {"codes", "timeout", "infotree_type", "disable_cache"} or not isinstance(body["timeout"], int):
            raise ValueError(f"unknown fields, or no whole timeout: {sorted(body)}")
        return {"results": [self._result(code["custom_id"], code["proof"]) for code in body["codes"]]}

    def _result(self, custom_id: str, program: str) -> dict[str, Any]:
        self.programs.append(program)
        if self.error is not None:
            return {"custom_id": custom_id, "error": self.error}
        messages = [
            {"severity": severity, "pos": {"line": 1, "column": 0}, "endPos": {"line": 1, "column": 1}, "data": data}
            for severity, data in self.elaborate(program)
        ]
        return {"custom_id": custom_id, "response": {"env": 0, "messages": messages, "time": 0.01}}

    def elaborate(self, program: str) -> list[tuple[str, str]]:
        """Severity and text of each message about a program."""
        match = PROGRAM.fullmatch(program)
        if match is None:
            return [("error", "unexpected token")]
        name, proof = f"{match['namespace']}.{match['name']}", match["proof"].strip()
        extra = {axiom for word, axiom in EXTRA_AXIOMS.items() if re.search(rf"\b{word}\b", proof)}
        if proof not in self.proofs and not extra:
            return [("error", "unsolved goals")]
        warnings = [("warning", "declaration uses 'sorry'")] if "sorryAx" in extra else []
        axioms = ", ".join([STANDARD, *sorted(extra)])
        return [*warnings, ("info", f"'{name}' depends on axioms: [{axioms}]")]

    def _handler(stub) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                if self.path != "/verify":
                    return self._send(404, {"detail": "Not Found"})
                if stub.key is not None and self.headers["Authorization"] != f"Bearer {stub.key}":
                    return self._send(401, {"detail": "Missing or invalid API key"})
                try:
                    body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                    self._send(200, stub.answer(body))
                except (KeyError, TypeError, ValueError) as error:
                    self._send(422, {"detail": str(error)})

            def _send(self, status: int, answer: dict[str, Any]) -> None:
                data = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        return Handler
