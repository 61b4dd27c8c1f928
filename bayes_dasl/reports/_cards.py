"""Figures of the report, each with its caption: `Card`."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import matplotlib as mpl
from matplotlib.figure import Figure

from ..plots import STYLE

_FULL_WIDTH = 2.0
"""Width of a figure that has the page to itself, in widths of one that has another beside it."""


@dataclass(frozen=True)
class Card:
    """One figure of the report with its texts.

    Args:
        id: id of the HTML element.
        figure: the figure.
        alt: description of the image for readers who cannot see it.
        title: first words of the caption, in bold.
        caption: the rest of the caption.
    """

    id: str
    figure: Figure
    alt: str
    title: str
    caption: str

    @property
    def uri(self) -> str:
        """The image as a data URI; SVG inside the page needs no other file."""
        buffer = io.BytesIO()
        # Without a date, the same figure gives the same page.
        with mpl.rc_context(STYLE):
            self.figure.savefig(buffer, format="svg", metadata={"Date": None}, dpi=150)
        encoded = base64.b64encode(buffer.getvalue()).decode("ascii")
        return f"data:image/svg+xml;base64,{encoded}"

    @property
    def wide_uri(self) -> str:
        """The image in the width of the page, with text and lines as large as in `uri`."""
        width, height = self.figure.get_size_inches()
        self.figure.set_size_inches(_FULL_WIDTH * width, height)
        try:
            return self.uri
        finally:
            self.figure.set_size_inches(width, height)


def card(figure: Figure, name: str, title: str, caption: str, alt: str) -> Card:
    """Make a card from a Matplotlib figure.

    Args:
        figure: the figure.
        name: part of the HTML id after `figure-`.
        title: first words of the caption.
        caption: the rest of the caption.
        alt: description of the image for readers who cannot see it.

    Returns:
        The card.
    """
    return Card(f"figure-{name}", figure, alt, title, caption)
