"""Ray: a local one that leaves nothing behind, or the running cluster that RAY_ADDRESS names."""

from __future__ import annotations

import logging
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import ray
from ray._private.authentication.authentication_token_setup import maybe_enable_token_auth_if_token_available
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group

from rapid.errors import RunFailedError, StartInterruptedError, UsageError

_REMOVE_ATTEMPTS = 10
_ANSWER_S = 10.0
_TELL_S = 10.0
_OBJECT_STORE_BYTES = 100 * 2**20  # Ray only places and restarts here; the data travels over ZeroMQ


@contextmanager
def connect_ray() -> Iterator[bool]:
    """Connect to Ray and disconnect at the end. Yields whether it is a cluster that was there before."""
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
            num_cpus=os.cpu_count(),
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
    # `ray start` demands the token of ~/.ray as soon as there is one, while a driver offers it only when told to.
    maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
    try:
        ray.init(log_to_driver=False, logging_level=logging.WARNING, namespace="rapid")
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise RunFailedError(f"RAY_ADDRESS = {address!r}: {error}") from error


def check_answers(address: str) -> None:
    """Raises UsageError where nobody listens; Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():
        return  # "auto", which Ray resolves
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_S).close()
    except OSError as error:
        raise UsageError(
            f"RAY_ADDRESS = {address!r}: nobody answers there ({error.strerror or error}). Expected a running cluster: "
            "start it with `ray start --head`, or unset RAY_ADDRESS for a Ray of this run's own"
        ) from None


def _remove(folder: str) -> None:
    # Ray's processes may write their last lines while they end.
    for _ in range(_REMOVE_ATTEMPTS):
        shutil.rmtree(folder, ignore_errors=True)
        if not os.path.exists(folder):
            return
        time.sleep(0.5)


def reserve(
    bundles: list[dict[str, float]],
    names: list[str],
    timeout_s: float,
    tell: Callable[[str], None],
    is_interrupted: Callable[[], bool],
) -> PlacementGroup:
    """Reserve the resources of the parts that must all be there.

    Raises:
        RunFailedError: they do not come.
        StartInterruptedError: `is_interrupted` says so.

    Args:
        bundles: resources of each part.
        names: what each bundle is for, for the message.
        tell: called now and then with what is waited for, and for how long.
    """
    group = placement_group(bundles, strategy="PACK")
    begin_s, tell_s = time.monotonic(), _TELL_S
    while not group.wait(timeout_seconds=min(1.0, timeout_s)):
        if is_interrupted():
            remove_placement_group(group)
            raise StartInterruptedError("the parts waited for a place")
        waited_s = time.monotonic() - begin_s
        text = f"{_waiting_for(bundles, names)} for {waited_s:.0f} s"
        if waited_s >= timeout_s:
            remove_placement_group(group)
            raise RunFailedError(
                f"Ray offered no place: {text}. Add nodes, lower the parts' resources, or raise run.start_timeout_s"
            )
        if waited_s >= tell_s:
            tell_s *= 3
            tell(text)
    return group


def _waiting_for(bundles: list[dict[str, float]], names: list[str]) -> str:
    """Which parts wait for which resources, those first that no node could hold even if it were idle."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    hopeless = [
        f"{name} {bundle} (more than any of the {len(nodes)} nodes has)"
        for name, bundle in zip(names, bundles, strict=True)
        if not any(all(node.get(key, 0.0) >= amount for key, amount in bundle.items()) for node in nodes)
    ]
    wanted = hopeless or [f"{name} {bundle}" for name, bundle in zip(names, bundles, strict=True)]
    asked = {key for bundle in bundles for key in bundle}
    free = {key: amount for key, amount in ray.available_resources().items() if key in asked}
    return f"{', '.join(wanted)} wait for a place; free in the cluster: {free or 'nothing'};"
