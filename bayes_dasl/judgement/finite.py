"""Draws of which a prediction is infinite or no number: what looks at them leaves them out, and says so."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import xarray as xr

from .._findings import Finding
from .matching import repeats

FEW = 0.05  # a share of draws up to which the others may stand for those that are left out


def finite_findings(post: xr.DataTree, fc: xr.DataTree | None) -> Iterator[Finding]:
    """Draws that were solved, but whose predictions overflow."""
    yield from _told(_not_finite(post, "conditional_mean"), _solved(post), "posterior")
    if fc is not None:
        odd = _not_finite(fc, "predictions")
        for name, found in _not_finite(fc, "conditional_mean").items():
            odd[name] = odd.get(name, False) | found
        yield from _told(odd, _solved(fc), "forecast")


def usable_draws(fc: xr.DataTree) -> np.ndarray:
    """Which draws of the posterior `(chain, draw)` were solved in a forecast and have finite predictions only."""
    sizes = fc["predictions"].dataset.sizes
    usable = np.ones((sizes["chain"], sizes["draw"] // repeats(fc)), bool)
    for found in _not_finite(fc, "predictions").values():
        usable &= ~found
    solved = _solved(fc)
    return usable if solved is None else usable & solved


def _not_finite(tree: xr.DataTree, group: str) -> dict[str, np.ndarray]:
    """By observable, which draws of the posterior `(chain, draw)` have a value that is infinite or no number."""
    each = repeats(tree) if group == "predictions" else 1
    variables = tree[group].to_dataset().data_vars if group in tree.children else {}
    values = {str(name): variable.transpose("chain", "draw", ...).values for name, variable in variables.items()}
    return {name: ~np.isfinite(v.reshape(len(v), v.shape[1] // each, -1)).all(axis=2) for name, v in values.items()}


def _solved(tree: xr.DataTree) -> np.ndarray | None:
    """Which draws are not counted as failures of the solver already."""
    for group, name, means in (("sample_stats_predictions", "ok", True), ("sample_stats", "solver_failure", False)):
        if group in tree.children and name in tree[group].data_vars:
            return tree[group][name].transpose("chain", "draw").values.astype(bool) == means
    return None


def _told(odd: dict[str, np.ndarray], solved: np.ndarray | None, draws: str) -> Iterator[Finding]:
    for name, every in odd.items():
        found = every if solved is None else every & solved
        if found.any():
            yield Finding(
                "bad" if found.mean() > FEW else "warning",
                f"finite {name}",
                f"'{name}' is infinite or not a number in {int(found.sum())} of {found.size} {draws} draws, and these "
                "are left out",
                "look at these draws: the scale of the noise may be so large that the mean overflows, a sign that the "
                "model predicts nothing like the data, or an equation may divide by zero",
            )
