from __future__ import annotations

import pytest
from pydantic import ValidationError

from actors.config import ActorsConfig
from protocol.status import ScaleOrder
from rapid.scaling import LOOK_EVERY_S, LOOKS, Scaler

SETTLE_S = ActorsConfig().settle_s


def order(number: int, actors: int | None) -> ScaleOrder:
    return ScaleOrder(number=number, actors=actors)


def test_an_order_is_followed_once() -> None:
    scaler = Scaler(ActorsConfig(count=2, max=4), now=0.0)
    assert scaler.follow(None, 0.0) is None
    assert "asked for 4 actors instead of 2" in str(scaler.follow(order(1, 4), 0.0))
    assert scaler.follow(order(1, 4), 0.0) is None
    assert scaler.wanted == 4
    scaler.follow(order(2, None), 0.0)
    assert (scaler.wanted, scaler.scaling) == (2, "fixed")


def test_orders_stay_within_the_bounds_whatever_the_hub_let_through() -> None:
    scaler = Scaler(ActorsConfig(count=2, min=2, max=4), now=0.0)
    scaler.follow(order(1, 9), 0.0)
    assert scaler.wanted == 4
    scaler.follow(order(2, 1), 0.0)
    assert scaler.wanted == 2


def looks(scaler: Scaler, begin_s: float, *advised: int | None, room: int = 0) -> list[int]:
    """What is wanted after each of several looks, one every LOOK_EVERY_S."""
    wanted = []
    for look, actors in enumerate(advised):
        scaler.consider(begin_s + look * LOOK_EVERY_S, actors, room)
        wanted.append(scaler.wanted)
    return wanted


def test_advice_is_followed_when_it_is_steady_and_the_last_change_has_settled() -> None:
    scaler = Scaler(ActorsConfig(count=1, max=4, scaling="advice"), now=0.0)
    assert looks(scaler, LOOK_EVERY_S, 3, 3, 3, 3) == [1, 1, 1, 1], "engines are still starting"
    assert looks(scaler, SETTLE_S, 3, 2, 3, None, 3, 3, 3) == [1, 1, 1, 1, 1, 1, 3]
    assert looks(scaler, SETTLE_S + 7 * LOOK_EVERY_S, 9, 9, 9, 9) == [3, 3, 3, 3]
    assert looks(scaler, 3 * SETTLE_S, *[9] * LOOKS)[-1] == 4, "actors.max holds"


def test_a_run_whose_engines_start_slowly_may_rest_longer() -> None:
    scaler = Scaler(ActorsConfig(count=1, max=4, scaling="advice", settle_s=600), now=0.0)
    assert looks(scaler, 600 - LOOKS * LOOK_EVERY_S, *[3] * LOOKS) == [1] * LOOKS
    assert looks(scaler, 600, *[3] * LOOKS)[-1] == 3


def test_looks_that_come_too_soon_do_not_count() -> None:
    scaler = Scaler(ActorsConfig(count=1, max=4, scaling="advice"), now=0.0)
    for _ in range(10 * LOOKS):
        assert scaler.consider(SETTLE_S, 3, 0) is None
    assert scaler.wanted == 1


def test_the_clusters_room_is_filled_up_to_the_maximum_and_given_back() -> None:
    scaler = Scaler(ActorsConfig(count=1, max=3, scaling="cluster"), now=0.0)
    assert looks(scaler, LOOK_EVERY_S, *[None] * LOOKS, room=9)[-1] == 3
    assert looks(scaler, 100.0, *[None] * LOOKS, room=-2)[-1] == 1


def test_an_order_ends_scaling_until_auto_is_ordered() -> None:
    scaler = Scaler(ActorsConfig(count=1, max=4, scaling="advice"), now=0.0)
    scaler.follow(order(1, 2), 0.0)
    assert looks(scaler, SETTLE_S, *[4] * 2 * LOOKS)[-1] == 2
    scaler.follow(order(2, None), 0.0)
    assert looks(scaler, 4 * SETTLE_S, *[4] * LOOKS)[-1] == 4


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"scaling": "advice"}, "without actors.max"),
        ({"count": 5, "max": 4}, "actors.count = 5: expected from actors.min = 1 to actors.max = 4"),
        ({"count": 1, "min": 2}, "expected from actors.min = 2"),
    ],
)
def test_bounds_that_cannot_hold_are_refused(fields: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        ActorsConfig.model_validate(fields)


def test_what_was_agreed_before_an_order_does_not_count_after_it() -> None:
    scaler = Scaler(ActorsConfig(count=1, max=5, scaling="advice"), now=0.0)
    looks(scaler, SETTLE_S, *[5] * (LOOKS - 1))
    scaler.follow(order(1, 2), 2 * SETTLE_S)
    scaler.follow(order(2, None), 2 * SETTLE_S)
    assert looks(scaler, 2 * SETTLE_S + LOOK_EVERY_S, *[5] * LOOKS)[-1] == 2, "the order has to settle first"
    assert looks(scaler, 3 * SETTLE_S, *[5] * LOOKS) == [2, 2, 5]
