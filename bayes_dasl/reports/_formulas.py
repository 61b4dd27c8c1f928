"""Words with formulas in them, as HTML."""

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
    """Words as HTML: what stands in LaTeX between dollars, or two of them, as MathML, all else as
    it is.

    A formula that has lines to itself is set as one, with its limits above and below. What does not
    look like LaTeX, or cannot be read, stays as it was written, with its dollars.
    """
    made, at = [], 0
    for found in _FORMULA.finditer(words):
        before, after = (
            words[: found.start()].rpartition("\n")[2],
            words[found.end() :].partition("\n")[0],
        )
        alone = found["small"] is None or not (before + after).strip()
        made += [escape(words[at : found.start()]), _formula(found, alone)]
        at = found.end()
    return Markup("").join([*made, escape(words[at:])])


def _formula(found: re.Match[str], alone: bool) -> Markup:
    latex = found["large"] or found["small"]
    # Prices and shell variables have brackets that do not close; of what follows a % LaTeX sees
    # nothing.
    if not _balanced(latex) or re.search(r"(?<!\\)%", latex):
        return escape(found[0])
    try:
        root = convert_to_element(latex, display="block" if alone else "inline")
    except Exception:  # whatever the library makes of what is no LaTeX: it has no common error
        return escape(found[0])
    for node in root.iter():
        node.text = html.unescape(node.text) if node.text else node.text
        if node.text and node.text.startswith("\\"):  # a command that it does not know
            return escape(found[0])
        for name in _UNWANTED:
            node.attrib.pop(name, None)
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _balanced(latex: str) -> bool:
    """Whether brackets close that open, of whichever kind: a half-open interval has two."""
    bare = re.sub(r"\\[{}]", "", latex)
    depths = [*accumulate(((c in "([{") - (c in ")]}") for c in bare), initial=0)]
    return min(depths) == depths[-1] == 0
