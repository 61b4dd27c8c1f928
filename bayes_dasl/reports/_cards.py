"""Figures of the report, each with its caption: `Card`."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import matplotlib as mpl
from matplotlib.figure import Figure

from ..plots import STYLE


@dataclass(frozen=True)
class Card:
    """One figure of the report with its texts.

    Args:
        id: id of the HTML element.
        uri: the image as a data URI.
        alt: description of the image for readers who cannot see it.
        title: first words of the caption, in bold.
        caption: the rest of the caption.
    """

    id: str
    uri: str
    alt: str
    title: str
    caption: str


def card(figure: Figure, name: str, title: str, caption: str, alt: str) -> Card:
    """Make a card from a Matplotlib figure, with the image as SVG inside the page.

    Args:
        figure: the figure.
        name: part of the HTML id after `figure-`.
        title: first words of the caption.
        caption: the rest of the caption.
        alt: description of the image for readers who cannot see it.

    Returns:
        The card.
    """
    buffer = io.BytesIO()
    # Without a date, the same figure gives the same page.
    with mpl.rc_context(STYLE):
        figure.savefig(buffer, format="svg", metadata={"Date": None}, dpi=150)
    encoded = base64.b64encode(buffer.getvalue()).decode("ascii")
    uri = f"data:image/svg+xml;base64,{encoded}"
    return Card(f"figure-{name}", uri, alt, title, caption)
