"""A Prometheus of one's own, with the configuration and the rules of `deploy/prometheus`, for tests and benchmarks."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
_START_S = 30.0


class PrometheusServer:
    """Scrapes every second all runs in `runs`, a folder within `folder`. Close it.

    Args:
        folder: an existing one, for all that it reads and writes.
        evaluation_interval: time between two evaluations of the rules, such as "1s"; None leaves that of
            `deploy/prometheus`.

    Raises:
        FileNotFoundError: Prometheus is not installed.
        RuntimeError: it did not start; the message holds its log.
    """

    def __init__(self, folder: Path, evaluation_interval: str | None = None) -> None:
        self.runs = folder / "runs"
        # It is told of new files in a folder that was there when it started; others it finds by asking.
        (self.runs / ".targets").mkdir(parents=True)
        # Where docker-compose.yml has it too, so that the configuration's relative paths hold.
        etc = folder / "etc" / "prometheus"
        shutil.copytree(ROOT / "deploy" / "prometheus", etc)
        config = yaml.safe_load((etc / "prometheus.yml").read_text())
        config["global"]["scrape_interval"] = "1s"
        if evaluation_interval is not None:
            config["global"]["evaluation_interval"] = evaluation_interval
        (etc / "prometheus.yml").write_text(yaml.safe_dump(config))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{probe.getsockname()[1]}"
        self._log = folder / "prometheus.log"
        command = ["prometheus", f"--config.file={etc / 'prometheus.yml'}", f"--web.listen-address={self.address}"]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*command, f"--storage.tsdb.path={folder / 'tsdb'}"], stdout=log, stderr=subprocess.STDOUT
            )
        self._wait_until_ready()

    @property
    def pid(self) -> int:
        """Of its process."""
        return self._process.pid

    def get(self, path: str, **parameters: str | float) -> Any:
        """`data` of an answer of the HTTP API. Raises ValueError with Prometheus' words when it refuses."""
        url = f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=20) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise ValueError(json.load(error).get("error", str(error))) from None

    def targets(self) -> dict[str, str]:
        """Health of each process that it scrapes, by address: "up", "down" or "unknown"."""
        active = self.get("targets", state="active")["activeTargets"]
        return {one["labels"]["instance"]: one["health"] for one in active if one["labels"]["job"] == "rapid"}

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + _START_S
        while True:
            try:
                with urllib.request.urlopen(f"http://{self.address}/-/ready", timeout=2):
                    return
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    self.close()
                    raise RuntimeError(f"Prometheus did not start:\n{self._log.read_text()}") from None
            time.sleep(0.1)

    def close(self) -> None:
        """End it. Idempotent."""
        self._process.terminate()
        self._process.wait(20)
