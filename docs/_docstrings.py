"""Set the labelled lines of the house's docstrings (Shapes, Units, Raises, Source) as a list."""

import re

import griffe

_LABEL = re.compile(r"^(Shapes|Units|Raises|Source|Returns): ", re.MULTILINE)


class LabelledLines(griffe.Extension):
    """One list item for each labelled line, the lines that continue it included."""

    def on_object(self, *, obj: griffe.Object, **_: object) -> None:
        """Rewrite the docstring of any object."""
        if obj.docstring and (first := _LABEL.search(obj.docstring.value)):
            text, labelled = (
                obj.docstring.value[: first.start()],
                obj.docstring.value[first.start() :],
            )
            items = labelled.replace("\n", "\n  ")
            obj.docstring.value = f"{text.rstrip()}\n\n" + re.sub(
                r"^ *(Shapes|Units|Raises|Source|Returns): ",
                r"- **\1:** ",
                items,
                flags=re.MULTILINE,
            )
