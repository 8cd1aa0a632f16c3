from __future__ import annotations

from typing import Any

import pytest

from rapid import fleet
from rapid.fleet import Fleet


@pytest.mark.parametrize(
    ("nodes", "room"),
    [
        # The head has free CPUs and may hold no actor; the actors' nodes are full.
        ([{"CPU": 1.9, "learner": 1.0}, {"actor": 0.999}, {"actor": 0.999}], 0),
        ([{"CPU": 1.9, "learner": 1.0}, {"CPU": 1.0, "actor": 1.0}], 1),
        ([{"CPU": 2.5, "actor": 1.0}, {"CPU": 0.9, "actor": 1.0}], 2),
        ([], 0),
    ],
)
def test_room_is_that_of_each_node_by_itself(
    nodes: list[dict[str, float]], room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = {str(index): node for index, node in enumerate(nodes)}
    monkeypatch.setattr(fleet, "available_resources_per_node", lambda: free)
    unused: Any = None
    options = {"num_cpus": 1.0, "num_gpus": 0, "resources": {"actor": 0.001}}
    assert Fleet(unused, unused, options, hub_address="", tell=print).room() == room
