"""Set the arguments and the labelled lines (Shapes, Units, Raises, Source) of the house's
docstrings as a list.
"""

import re

import griffe

_LABEL = re.compile(r"^(Shapes|Units|Raises|Source|Returns): ", re.MULTILINE)
_ARGS = re.compile(r"^Args:\n((?: {4}.*\n?)+)\n*", re.MULTILINE)
_ARGUMENT = re.compile(r"^ {4}(\w+): ", re.MULTILINE)


class LabelledLines(griffe.Extension):
    """One list item for each argument and each labelled line,
    the lines that continue it included.
    """

    def on_object(self, *, obj: griffe.Object, **_: object) -> None:
        """Rewrite the docstring of any object."""
        if not obj.docstring:
            return
        text, labelled = obj.docstring.value, ""
        if first := _LABEL.search(text):
            labelled = text[first.start() :].replace("\n", "\n  ")
            labelled = re.sub(
                r"^ *(Shapes|Units|Raises|Source|Returns): ",
                r"- **\1:** ",
                labelled,
                flags=re.MULTILINE,
            )
            text = text[: first.start()].rstrip() + "\n\n"
        if found := _ARGS.search(text):
            listed, after = _ARGUMENT.sub(r"    - `\1`: ", found[1].rstrip()), text[found.end() :]
            # A blank line between two items would set all of the list widely.
            end = "\n\n" if after else "\n"
            text = f"{text[: found.start()]}- **Args:**\n{listed}{end}{after}"
        if labelled or found:
            obj.docstring.value = text + labelled
