"""What the keys of `rapid top` do: a pure step from one setting of the view to the next."""

from __future__ import annotations

from dataclasses import dataclass, replace

from telemetry.parts import SORTS

QUIT = frozenset({"q", "Q"})
_SCROLL = {"up": -1, "k": -1, "down": 1, "j": 1}
_FAR = 10**6


@dataclass(frozen=True, slots=True)
class Controls:
    """How the actors are sorted, from which on they are shown, and whether the view stands still."""

    sort: str = SORTS[0]
    is_reversed: bool = False
    offset: int = 0
    """Actors above the first one shown; the frame keeps it within what there is."""
    is_paused: bool = False
    shows_help: bool = False


def press(controls: Controls, key: str, page: int, num_actors: int) -> Controls:
    """The controls after a key; `page` actors of `num_actors` are on the screen. Unknown keys change nothing."""
    if controls.shows_help:
        # Any key leaves the help, and does nothing else.
        return replace(controls, shows_help=False)
    steps = {"page up": -page, "page down": page, "home": -_FAR, "end": _FAR, **_SCROLL}
    if key in steps:
        last = max(num_actors - page, 0)
        return replace(controls, offset=min(max(controls.offset + steps[key], 0), last))
    if key == "s":
        return replace(controls, sort=SORTS[(SORTS.index(controls.sort) + 1) % len(SORTS)], offset=0)
    if key == "r":
        return replace(controls, is_reversed=not controls.is_reversed, offset=0)
    if key in ("p", "space"):
        return replace(controls, is_paused=not controls.is_paused)
    if key in ("?", "h"):
        return replace(controls, shows_help=True)
    return controls
