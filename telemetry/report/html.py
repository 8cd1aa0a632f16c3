"""Pieces of HTML. Every text is escaped here; what is markup already goes by the type Html."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any, NewType

Html = NewType("Html", str)


def text(value: object) -> Html:
    """Any text, escaped."""
    return Html(escape(str(value)))


def join(pieces: Iterable[Html]) -> Html:
    """Pieces one after the other."""
    return Html("\n".join(pieces))


def tag(name: str, *content: Html, **attributes: str) -> Html:
    """An element; `class_` is the attribute class, and `data_x` is data-x."""
    given = "".join(f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"' for key, value in attributes.items())
    return Html(f"<{name}{given}>{''.join(content)}</{name}>")


def section(anchor: str, title: str, content: Html, note: str = "") -> Html:
    """A section of the page; nothing where there is no content."""
    if not content:
        return Html("")
    lead = tag("p", text(note), class_="note") if note else Html("")
    return tag("section", tag("h2", text(title)), lead, content, id=anchor)


def table(head: Sequence[str], rows: Sequence[Sequence[object]], *, class_: str = "") -> Html:
    """A table whose first column names and whose others count."""
    kinds = ["", *["number"] * (len(head) - 1)]
    top = [tag("th", text(cell), class_=kind) for cell, kind in zip(head, kinds, strict=True)]
    body = [
        tag("tr", *(tag("td", text(cell), class_=kind) for cell, kind in zip(row, kinds, strict=True))) for row in rows
    ]
    inner = tag("table", tag("thead", tag("tr", *top)), tag("tbody", *body))
    return tag("div", inner, class_=f"scroll {class_}".strip())


def json_script(anchor: str, data: Mapping[str, Any]) -> Html:
    """Data for the scripts. No text in it can end the element or begin another."""
    encoded = json.dumps(data, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        encoded = encoded.replace(character, f"\\u{ord(character):04x}")
    return Html(f'<script type="application/json" id="{anchor}">{encoded}</script>')
