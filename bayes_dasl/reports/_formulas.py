"""Conversion of text with LaTeX formulas to HTML."""

from __future__ import annotations

import html
import re
from itertools import accumulate
from xml.etree import ElementTree

from latex2mathml.converter import convert_to_element
from markupsafe import Markup, escape

_INSIDE = r"(?:(?!\n\s*\n)[^$])+?"  # one paragraph, no dollar
_FORMULA = re.compile(
    rf"(?<![\\$\w])(?:\$\$\s*(?P<large>{_INSIDE})\s*\$\$|\$(?=\S)(?P<small>{_INSIDE})(?<=\S)\$)(?![\w${{/(])"
)
_UNWANTED = ("href", "style", "class", "id")


def with_formulas(words: str) -> Markup:
    """Convert text to HTML, with LaTeX between `$` or `$$` as MathML.

    A formula alone on its line is displayed, with limits above and below the operators. Invalid
    LaTeX stays as written, with its dollar signs.
    """
    made, at = [], 0
    for found in _FORMULA.finditer(words):
        # A formula alone on its line is displayed.
        before = words[: found.start()].rpartition("\n")[2]
        after = words[found.end() :].partition("\n")[0]
        alone = found["small"] is None or not (before + after).strip()
        made += [escape(words[at : found.start()]), _formula(found, alone)]
        at = found.end()
    return Markup("").join([*made, escape(words[at:])])


def _formula(found: re.Match[str], alone: bool) -> Markup:
    """Convert one formula to MathML, or return it as written if it is no valid LaTeX.

    Args:
        found: match of `_FORMULA`.
        alone: whether the formula is displayed on its own line.
    """
    latex = found["large"] or found["small"]
    # Prices and shell variables have unbalanced brackets. A `%` would start a LaTeX comment.
    if not _balanced(latex) or re.search(r"(?<!\\)%", latex):
        return escape(found[0])
    try:
        root = convert_to_element(latex, display="block" if alone else "inline")
    except Exception:  # the library has no common error for text that is no LaTeX
        return escape(found[0])
    for node in root.iter():
        node.text = html.unescape(node.text) if node.text else node.text
        # The library copies commands that it does not know.
        if node.text and node.text.startswith("\\"):
            return escape(found[0])
        # User text must not bring links or styles into the page.
        for name in _UNWANTED:
            node.attrib.pop(name, None)
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _balanced(latex: str) -> bool:
    """Whether brackets close as often as they open; kinds may differ, as in `[0, 1)`."""
    bare = re.sub(r"\\[{}]", "", latex)
    # Depth after each character: it starts and ends at 0 and is never below it.
    depths = [*accumulate(((c in "([{") - (c in ")]}") for c in bare), initial=0)]
    return min(depths) == depths[-1] == 0
