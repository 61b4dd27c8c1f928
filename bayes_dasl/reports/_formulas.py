"""Words with formulas in them, as HTML."""

from __future__ import annotations

import html
import re
from xml.etree import ElementTree

from latex2mathml.converter import convert_to_element
from markupsafe import Markup, escape

# Between dollars that touch it, within one paragraph: prices and code are none.
_FORMULA = re.compile(r"(?<![\\$\w])\$(?=\S)((?:(?!\n\s*\n)[^$])+?)(?<=\S)\$(?![\w$])")


def with_formulas(words: str) -> Markup:
    """Words as HTML: what stands in LaTeX between dollars as MathML, all else as it is.

    A formula that has lines to itself is set as one, with its limits above and below. What cannot be read stays as it
    was written.
    """
    made, at = [], 0
    for found in _FORMULA.finditer(words):
        before, after = words[: found.start()].rpartition("\n")[2], words[found.end() :].partition("\n")[0]
        made += [escape(words[at : found.start()]), _formula(found, alone=not (before + after).strip(" .,"))]
        at = found.end()
    return Markup("").join([*made, escape(words[at:])])


def _formula(found: re.Match[str], alone: bool) -> Markup:
    try:
        root = convert_to_element(found[1], display="block" if alone else "inline")
    except Exception:  # whatever the library makes of what is no LaTeX: it has no common error
        return escape(found[0])
    for node in root.iter():
        node.text = html.unescape(node.text) if node.text else node.text
        node.attrib.pop("href", None)
    return Markup(ElementTree.tostring(root, encoding="unicode"))
