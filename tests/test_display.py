"""Models and results at the prompt and in a notebook: complete, escaped, readable on any
background.
"""

import builtins
import html.parser
import re
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import bayes_dasl as bd
from bayes_dasl._findings import LEVELS, Diagnosis, Finding
from bayes_dasl.checking import Check
from bayes_dasl.scores import ensemble_scores


class Tank(bd.Module):
    outflow: bd.Scalar = bd.field(units="m<sup>0.5</sup>")
    loss: bd.Scalar = 0.5

    def __call__(self, t, y, u):
        return {"level": -self.outflow * y["level"] - self.loss * y["level"]}


RATE = bd.shared(dist.Normal(jnp.zeros(2), 1.0).to_event(1), "rate")
MODEL = bd.Model(
    bd.ODE(Tank(bd.between(0.05, 1.0), RATE[0]), {"level": dist.LogNormal(-0.7, 0.5)}),
    {"level": bd.LogNormalNoise(dist.HalfNormal(1.0))},
)
FINDINGS = (
    Finding("good", "R-hat", "1.00 < 1.01"),
    Finding("bad", "divergences", "<script>alert(1)</script>", "raise a & b"),
    Finding("inconclusive", "coverage", "few data", "hold out more"),
)
TABLE = [
    ["name", "prior", "units", "shape", "group"],
    ["layer.vector_field.outflow", "LogNormal(-1.5, 0.764)", "m<sup>0.5</sup>", "", "science"],
    ["layer.initial.level", "LogNormal(-0.7, 0.5)", "", "", "science"],
    ["noise.level.scale", "HalfNormal(1)", "", "", "science"],
    ["rate", "Normal(0, 1) in layer.vector_field.loss", "", "2", "science"],
]


@dataclass
class Page(html.parser.HTMLParser):
    """Rows of cells, tags and all text of a piece of HTML; closing tags must match."""

    rows: list[list[str]] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    text: str = ""

    def __post_init__(self):
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag != "br":
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data


def read(text):
    page = Page()
    page.feed(text)
    page.close()
    assert page.open == []
    # Nothing is loaded, nothing runs, and no colour of text or page is set but in badges.
    assert not {"script", "style", "link", "img", "iframe"} & set(page.tags)
    assert not re.search(r"(src|href)=|url\(|https?:", text)
    without_badges = re.sub(r"color:#fff;background:#\w{6}", "", text)
    assert "color" not in without_badges and "background" not in without_badges
    return page


def test_the_text_of_a_model_has_a_line_for_each_parameter():
    title, *lines = repr(MODEL).splitlines()
    assert title == "Model: ODE, LogNormalNoise; 5 unknown numbers"
    assert [re.split(r"\s{2,}", line.strip()) for line in lines] == [
        [cell for cell in row if cell] for row in TABLE[1:]
    ]
    assert len({line.index(row[1]) for line, row in zip(lines, TABLE[1:], strict=True)}) == 1
    assert str(MODEL) == repr(MODEL)


@pytest.mark.parametrize("shown", [MODEL, bd.describe(MODEL)])
def test_the_page_of_a_model_is_a_table_of_its_parameters(shown):
    page = read(shown._repr_html_())
    assert page.rows == TABLE
    assert str(bd.describe(MODEL)) in page.text and "details" in page.tags


def test_a_description_shows_its_tree_at_the_prompt():
    assert repr(bd.describe(MODEL)) == str(bd.describe(MODEL))


class ZMQInteractiveShell:
    """Rich recognises a notebook by this name of its shell."""


def test_a_notebook_does_not_swallow_the_tree(monkeypatch):
    tree = str(bd.describe(MODEL))
    monkeypatch.setattr(builtins, "get_ipython", ZMQInteractiveShell, raising=False)
    assert str(bd.describe(MODEL)) == tree


def test_a_model_without_unknowns_has_no_table():
    known = bd.Model(bd.ODE(Tank(0.5), {"level": 1.0}), bd.NormalNoise(0.1))
    assert repr(known) == "Model: ODE, NormalNoise; 0 unknown numbers"
    assert read(known._repr_html_()).rows == []


def test_the_text_of_a_traced_model_does_not_fail():
    known = bd.Model(bd.ODE(Tank(0.5), {"level": 1.0}), bd.NormalNoise(0.1))

    @jax.jit
    def length(scale):
        return jnp.asarray(len(repr(bd.Model(known.layer, bd.NormalNoise(scale)))))

    assert length(0.1) > 0


@pytest.mark.parametrize("kind", [Diagnosis, Check])
def test_findings_are_a_table_with_the_worst_first(kind):
    found = kind(FINDINGS)
    assert repr(found) == str(found)
    page = read(found._repr_html_())
    assert page.text.startswith(found.verdict)
    assert page.rows == [
        ["level", "subject", "result"],
        ["bad", "divergences", "<script>alert(1)</script>Remedy: raise a & b"],
        ["inconclusive", "coverage", "few dataRemedy: hold out more"],
        ["good", "R-hat", "1.00 < 1.01"],
    ]


def luminance(colour):
    """Relative luminance by WCAG 2.1."""
    part = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(part <= 0.03928, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


def test_badges_can_be_read_on_any_background():
    text = Diagnosis(tuple(Finding(level, "a", "b", "c") for level in LEVELS))._repr_html_()
    colours = re.findall(r"color:#fff;background:(#\w{6})", text)
    assert len(set(colours)) == len(LEVELS)
    assert all(1.05 / (luminance(colour) + 0.05) >= 4.5 for colour in colours)


def test_a_score_table_shows_its_notes():
    rng = np.random.default_rng(0)
    pairs = {"a<b": (rng.normal(size=(50, 20)), rng.normal(size=20))}
    table = ensemble_scores.score_table(pairs)
    table.attrs["failed_draws"] = 3
    page = read(table._repr_html_())
    assert page.rows[0][1:] == list(table.columns) and len(page.rows) == 4
    assert page.rows[2][:2] == ["a<b", f"{table.loc['a<b', 'crps']:.4g}"]
    assert "left out: 3 draws that are not finite" in page.text
