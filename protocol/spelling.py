"""Which name a misspelt one may have meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest_name(text: str, names: Iterable[str]) -> str | None:
    """The name most like `text`, None if none is. Capitals, dashes and underscores do not count."""
    by_letters = {_letters(name): name for name in names}
    near = difflib.get_close_matches(_letters(text), by_letters, n=1, cutoff=0.5)
    return by_letters[near[0]] if near else None


def _letters(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")
