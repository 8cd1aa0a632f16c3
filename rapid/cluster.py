"""Ray: a local one that leaves nothing behind, or the running cluster that RAY_ADDRESS names."""

from __future__ import annotations

import logging
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

import ray
from ray._private.authentication.authentication_token_setup import maybe_enable_token_auth_if_token_available
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group

from rapid.errors import RunFailedError

_REMOVE_ATTEMPTS = 10
_ANSWER_S = 10.0
_OBJECT_STORE_BYTES = 100 * 2**20  # Ray only places and restarts here; the data travels over ZeroMQ


@contextmanager
def connect_ray(num_cpus: int) -> Iterator[bool]:
    """Connect to Ray and disconnect at the end. Yields whether it is a cluster that was there before.

    Args:
        num_cpus: logical CPUs that the run's parts ask for together; a local Ray offers at least these.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray says at every start that its token authentication is on, as it should be.
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
    if address := os.environ.get("RAY_ADDRESS"):
        _join(address)
        try:
            yield True
        finally:
            ray.shutdown()
        return
    # Ray runs its workers at niceness 15, so that any other program on the machine would starve engine and learner.
    os.environ.setdefault("RAY_worker_niceness", "0")
    # A folder of its own, short because socket paths are limited, so that nothing is shared with another Ray.
    folder = tempfile.mkdtemp(prefix="rapid-ray-")
    try:
        ray.init(
            address="local",
            num_cpus=max(num_cpus, os.cpu_count() or 1),
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.WARNING,
            object_store_memory=_OBJECT_STORE_BYTES,
            namespace="rapid",
            _temp_dir=folder,
        )
        yield False
    finally:
        ray.shutdown()
        _remove(folder)


def _join(address: str) -> None:
    _check_answers(address)
    # `ray start` demands the token of ~/.ray as soon as there is one, while a driver offers it only when told to.
    maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
    try:
        ray.init(log_to_driver=False, logging_level=logging.WARNING, namespace="rapid")
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise RunFailedError(f"RAY_ADDRESS = {address!r}: {error}") from error


def _check_answers(address: str) -> None:
    """Raises RunFailedError where nobody listens; Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():
        return  # "auto", which Ray resolves
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_S).close()
    except OSError as error:
        raise RunFailedError(
            f"RAY_ADDRESS = {address!r}: nobody answers there ({error.strerror or error}). Expected a running cluster: "
            "start it with `ray start --head`, or unset RAY_ADDRESS for a Ray of this run's own"
        ) from error


def _remove(folder: str) -> None:
    # Ray's processes may write their last lines while they end.
    for _ in range(_REMOVE_ATTEMPTS):
        shutil.rmtree(folder, ignore_errors=True)
        if not os.path.exists(folder):
            return
        time.sleep(0.5)


def reserve(bundles: list[dict[str, float]], names: list[str], timeout_s: float) -> PlacementGroup:
    """Reserve the resources of the parts that must all be there. Raises RunFailedError when they do not come.

    Args:
        bundles: resources of each part.
        names: what each bundle is for, for the message.
    """
    group = placement_group(bundles, strategy="PACK")
    deadline = time.monotonic() + timeout_s
    while not group.wait(timeout_seconds=5):
        if time.monotonic() > deadline:
            remove_placement_group(group)
            wanted = ", ".join(f"{name} {bundle}" for name, bundle in zip(names, bundles, strict=True))
            raise RunFailedError(
                f"Ray offered no place for {timeout_s:g} s. Wanted: {wanted}. Free: {ray.available_resources()}. "
                "Add nodes, lower the parts' resources, or raise run.start_timeout_s"
            )
    return group
