"""Formulas of docstrings are formulas on the page; what is none, or cannot be read, stays as it was
written.
"""

from xml.etree import ElementTree

import pytest

from bayes_dasl.reports._formulas import with_formulas


def math(page):
    """The formulas of a page, which is well formed as XML."""
    return ElementTree.fromstring(f"<p>{page}</p>").findall(
        "{http://www.w3.org/1998/Math/MathML}math"
    )


def test_what_stands_between_dollars_is_a_formula_and_the_rest_is_words():
    page = with_formulas(r"Falls by $\lambda < 3$ a day & so on.")
    assert page.startswith("Falls by <") and page.endswith("> a day &amp; so on.")
    (formula,) = math(page)
    assert "".join(formula.itertext()) == "λ<3" and formula.get("display") == "inline"


@pytest.mark.parametrize(
    "law", ["$E = \\sum_i x_i\n+ y$", "$$\nE = \\sum_i x_i\n$$", "So $$E = \\sum_i x_i$$ holds."]
)
def test_a_formula_with_lines_to_itself_or_two_dollars_stands_by_itself(law):
    large, small, last = math(
        with_formulas(f"A law.\n\n{law}\n\nWith $x$ known,\n$y \\in [0, 1)$.")
    )
    assert large.get("display") == "block" and "".join(large.itertext()).startswith("E=∑")
    assert small.get("display") == last.get("display") == "inline"


@pytest.mark.parametrize(
    "words",
    [
        *(
            "costs $3 and $4 more",
            "costs $5 (in US$).",
            "prices ($/MWh) and (MWh/$)",
            "US$5 or A$6",
            "one $ x $ two",
        ),
        *(
            "${HOME}/${USER}",
            'echo "${A}"/"${B}"',
            r"\$x$",
            "$a\n\nb$",
            r"$\left( x$",
            r"$\foo{x}$",
            "$50%$",
        ),
    ],
)
def test_what_is_none_or_cannot_be_read_stays_as_it_is(words):
    page = with_formulas(words)
    assert not math(page)
    assert "".join(ElementTree.fromstring(f"<p>{page}</p>").itertext()) == words


@pytest.mark.parametrize(
    "words",
    [
        r"$\text{<b>x</b>}$",
        r"$\href{javascript:alert(1)}{x}$",
        r"$\style{color:red}{x}$",
        "<script>$x$</script>",
    ],
)
def test_nothing_that_is_written_becomes_markup_of_the_page(words):
    page = with_formulas(words)
    assert not any(word in page for word in ("<b>", "href", "style=", "<script>"))
