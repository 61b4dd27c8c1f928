"""A figure on the page, with its caption."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import matplotlib as mpl
from matplotlib.figure import Figure

from ..plots import STYLE


@dataclass(frozen=True)
class Card:
    """One figure on the page: an image as a data URI, with title, caption and alternative text."""

    id: str
    uri: str
    alt: str
    title: str
    caption: str


def card(figure: Figure, name: str, title: str, caption: str, alt: str) -> Card:
    """Return a figure as a card; its image is SVG inside the page, which needs no other file."""
    buffer = io.BytesIO()
    # Without a date, the same figure gives the same page.
    with mpl.rc_context(STYLE):
        figure.savefig(buffer, format="svg", metadata={"Date": None}, dpi=150)
    encoded = base64.b64encode(buffer.getvalue()).decode("ascii")
    uri = f"data:image/svg+xml;base64,{encoded}"
    return Card(f"figure-{name}", uri, alt, title, caption)
