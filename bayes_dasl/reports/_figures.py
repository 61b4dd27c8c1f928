"""The report's figures: SVG in data URIs, with a caption and a text alternative each."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from .. import plots
from ..judgement.matching import Span
from ._text import MISSING, count, listed, percent, slug

MOST_OBSERVABLES = 8
MOST_PANELS = 12


@dataclass(frozen=True)
class Card:
    """One figure on the page."""

    id: str
    uri: str
    alt: str
    title: str
    caption: str


def forecast_cards(fc: xr.DataTree, train: xr.Dataset, test: xr.Dataset | None, names: Sequence[str]) -> list[Card]:
    """Draw the forecast of each observable."""
    return [
        _card(
            _forecast_figure(fc, name)(fc, train, test, name),
            f"forecast-{slug(name)}",
            str(fc["predictions"].dataset[name].attrs.get("long_name") or name),
            _data_words(train, test, name),
            f"Forecast of {name}: median, {_spread_words(fc, name)}, and the data.",
        )
        for name in names
    ]


def _forecast_figure(fc: xr.DataTree, name: str) -> Callable[..., Figure]:
    if is_field(fc, name):
        return plots.plot_field
    return plots.plot_members if _has_members(fc, name) else plots.plot_forecast


def is_field(fc: xr.DataTree, name: str) -> bool:
    return fc["predictions"].dataset[name].ndim > (4 if _has_members(fc, name) else 3)


def _has_members(fc: xr.DataTree, name: str) -> bool:
    return fc.attrs.get("members") in fc["predictions"].dataset[name].dims  # not where one was chosen


def _spread_words(fc: xr.DataTree, name: str) -> str:
    return "width of the 90 % interval" if is_field(fc, name) else "50 and 90 % bands"


def decomposition_cards(parts: xr.Dataset, fitted: Span) -> list[Card]:
    """Draw the parts of the predictive variance of each observable."""
    return [
        _card(
            plots.plot_decomposition(parts, name, fitted[1], fitted[0]),
            f"decomposition-{slug(name)}",
            name,
            _share_words(parts.sel(observable=name), fitted),
            f"Predictive variance of {name} over time, stacked by origin, with its total.",
        )
        for name in map(str, parts["observable"].values)
    ]


def derived_cards(fc: xr.DataTree, derived: xr.Dataset | None) -> list[Card]:
    """Draw derived quantities, and outputs of the model that nobody observes; not what has several dimensions."""
    held = {"unobserved": fc["unobserved"].to_dataset() if "unobserved" in fc.children else None, "derived": derived}
    words = {"unobserved": "Predicted, but not observed.", "derived": "Derived quantities."}
    without = {"unobserved": "Without noise: ", "derived": ""}
    cards = []
    for kind, values in held.items():
        shown = [n for n, v in values.data_vars.items() if v.ndim <= 3][:MOST_PANELS] if values is not None else []
        if values is not None and shown:
            figure = plots.plot_derived(values[shown])
            caption = f"{without[kind]}{listed([str(n) for n in shown])}, over all draws."
            alt = f"Posterior of {listed([str(n) for n in shown])}."
            cards.append(_card(figure, kind, words[kind], caption, alt))
    return cards


def density_cards(post: xr.DataTree, names: Sequence[str]) -> list[Card]:
    """Draw prior and posterior densities."""
    return [
        _card(
            plots.plot_prior_posterior(post, part),
            f"prior-posterior-{i + 1}",
            "What the data taught.",
            "Where the posterior lies on its prior, the data said little about that parameter."
            if i == 0
            else "The same for the other parameters.",
            f"Prior and posterior densities of {listed(part)}.",
        )
        for i, part in enumerate(_halves(names))
    ]


def rank_cards(post: xr.DataTree, names: Sequence[str], chains: int) -> list[Card]:
    """Draw the ranks of each chain's draws."""
    who = "The two halves of the one chain" if chains == 1 else "The chains"
    return [
        _card(
            plots.plot_ranks(post, part),
            f"ranks-{i + 1}",
            "Do they agree?",
            f"{who} agree where every line stays in the grey band, which holds 99 % of such lines "
            "for as many independent draws as a chain is worth. A line that leaves it marks a "
            "chain that is apart from the others."
            if i == 0
            else "The same for the other parameters.",
            f"Rank plots of {listed(part)}, one line a chain.",
        )
        for i, part in enumerate(_halves(names))
    ]


def training_cards(post: xr.DataTree) -> list[Card]:
    """Draw what a descent went through; nothing for engines that do not descend."""
    if "training" not in post.children:
        return []
    members = post["training"].sizes["member"]
    return [
        _card(
            plots.plot_training(post),
            "training",
            "How it was learned.",
            "The loss and its terms, step by step"
            + (f", one line for each of {members} members." if members > 1 else ".")
            + " A loss that still falls at the end asks for more steps.",
            "Loss of the descent and its terms against the step.",
        )
    ]


def calibration_cards(pit: xr.Dataset, scores: pd.DataFrame) -> list[Card]:
    """Draw the distribution of the PIT and the coverage of intervals."""
    n = int(scores.loc[[i for i in scores.index if i != "all"], "n"].sum())
    guide = f"{count(n, 'test value')}, neighbours in time and not independent: a guide, no test."
    return [
        _card(
            plots.plot_pit(pit),
            "pit",
            "Where the truth falls in the forecast.",
            "A calibrated forecast follows the diagonal. A line that is flat in the middle means "
            "bands too narrow; steep in the middle, bands too wide; all to one side, a bias. " + guide,
            "Empirical distribution of the probability integral transform of the test data.",
        ),
        _card(
            plots.plot_coverage(scores),
            "coverage",
            "How often the truth is inside.",
            _coverage_words(scores) + " Bars are 90 % intervals for a share of so few values.",
            "Observed against nominal coverage of the 50, 80, 90 and 95 % intervals.",
        ),
    ]


def _halves(names: Sequence[str]) -> list[Sequence[str]]:
    """Two figures of a few panels each lie side by side on a wide page, below on a narrow one."""
    if len(names) <= 4:
        return [names]
    first = 2 * -(-len(names) // 4)
    return [names[:first], names[first:]]


def _card(figure: Figure, name: str, title: str, caption: str, alt: str) -> Card:
    buffer = io.BytesIO()
    with mpl.rc_context(plots.STYLE):
        figure.savefig(buffer, format="svg", metadata={"Date": None}, dpi=150)
    encoded = base64.b64encode(buffer.getvalue()).decode("ascii")
    uri = f"data:image/svg+xml;base64,{encoded}"
    return Card(f"figure-{name}", uri, alt, title, caption)


def _data_words(train: xr.Dataset, test: xr.Dataset | None, name: str) -> str:
    said = []
    for data, kind in ((train, "fitted"), (test, "held out")):
        if data is None or name not in data:
            continue
        seen = np.isfinite(data[name].values)
        gap = f" ({int((~seen).sum())} missing)" if not seen.all() else ""
        said.append(f"{count(int(seen.sum()), 'value')} {kind}{gap}")
    words = listed(said) if said else "no data"
    return words[:1].upper() + words[1:] + "."


def _share_words(parts: xr.Dataset, fitted: Span) -> str:
    index = next(str(dim) for dim in parts.dims if dim != "observable")
    start, end = fitted
    epistemic = plots.epistemic_parts(parts)
    parts = parts[["total", "aleatoric"]].assign(epistemic)
    never = xr.zeros_like(parts[index], dtype=bool)
    sides = {
        "after": never if end is None else parts[index] > end,
        "before": never if start is None else parts[index] < start,
    }
    beyond = [side for side, there in sides.items() if bool(there.any())]
    ahead, where = parts, "over all times"
    if beyond:
        ahead = parts.where(sides["after"] | sides["before"], drop=True)
        where = f"{' and '.join(beyond)} the training data"
    whole = ahead.isel({index: np.flatnonzero(np.isfinite(ahead["total"].values))})
    lost = ahead.sizes[index] - whole.sizes[index]
    total = float(whole["total"].mean()) if whole.sizes[index] else np.nan
    if np.isnan(total) and np.isfinite(ahead["aleatoric"]).any():
        return f"One draw has no epistemic uncertainty: what is known of the variance {where} is aleatoric."
    if np.isnan(total):
        return f"The predictive variance {where} is not known: it is not finite."
    if not total > 0:
        return f"No predictive variance {where}."
    shares = [f"{n} {percent(float(whole[n].mean()) / total)}" for n in ("aleatoric", *epistemic)]
    without = f", without {count(lost, 'value')} of no finite variance" if lost else ""
    return f"Mean variance {where}{without}: {listed(shares)}."


def _coverage_words(scores: pd.DataFrame) -> str:
    inside = percent(scores.loc["all", "coverage_90"])
    if inside == MISSING:
        return "No test value could be scored."
    return f"The 90 % interval holds {inside} of the test values."
