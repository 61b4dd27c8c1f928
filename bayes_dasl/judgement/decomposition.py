"""Where the forecast's uncertainty comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr
from scipy import linalg

from ..errors import MismatchError
from .scores import check_forecast

GROUPS = ("science", "network")
MEANINGS = {
    "total": "total variance",
    "aleatoric": "variance of the observation given the draw",
    "epistemic": "variance of the conditional mean over draws",
    "science": "epistemic variance that knowing the science leaves would remove",
    "network": "epistemic variance that knowing the network leaves would remove",
    "interaction": "epistemic variance less science and network",
}
DRAWS_PER_FEATURE = 20


def decompose(fc: xr.DataTree, observables: Sequence[str] | None = None) -> xr.Dataset:
    r"""Split the predictive variance of each observable at each time (law of total variance).

    $\mathrm{Var}[y] = E[\mathrm{Var}(y \mid \theta)] + \mathrm{Var}[E(y \mid \theta)]$,
    `total = aleatoric + epistemic`; the total is computed on its own, from $E[v + m^2] - E[m]^2$.

    With science and network leaves in the model, the epistemic part, the variance of $m = E(y \mid \theta)$, is split
    by first-order conditional variances under the joint posterior: `science` $= \mathrm{Var}[E(m \mid \text{science})]$
    is what would vanish on average if the science leaves were known, `network` the same for the network's. Each lies
    between 0 and `epistemic`. `interaction` is what is left of it. It is positive where only both groups together
    determine the mean: a true interaction, or two groups that compensate each other, so that neither alone tells much.
    It is negative where either group alone tells the same, so that both count it.

    Both parts are regressions on the posterior's own draws; `explained_variance` says what those can miss.
    Failed draws are left out (`attrs["failed_draws"]`). Where one draw is left only the aleatoric part is known, that
    draw's own variance: the others are NaN, and all of them where no draw is left; the split is NaN for fewer than 20.

    Args:
        fc: what `forecast` returned.
        observables: some that have the same dimensions; all unless given.

    Shapes: each variable is `(observable, time, …)`, over the places of a field.
    Units: the square of the observable's, which the coordinate `units` names.
    Raises: MismatchError for what is no forecast, an unknown observable, or several that have different dimensions:
    name those of one kind.
    Source: Saltelli et al. (2008), Global Sensitivity Analysis; Kucherenko, Tarantola & Annoni (2012), for dependent
    inputs.
    """
    check_forecast(fc, "conditional_mean", "conditional_variance")
    means = chosen(fc["conditional_mean"].to_dataset(), observables)
    mean, variance = (stacked(fc[group].to_dataset(), means) for group in ("conditional_mean", "conditional_variance"))
    leaves = _leaves(fc)
    ok = np.all(np.isfinite(mean) & ~np.isnan(variance), axis=2)
    names = [name for name in MEANINGS if leaves or name not in (*GROUPS, "interaction")]
    parts = {name: np.full(mean.shape[1:], np.nan) for name in names}
    # As a rule a draw fails for every observable: then this is one pass, and one regression a group.
    for kept in np.unique(ok, axis=1).T:
        same = (ok == kept[:, None]).all(axis=0)
        shape = (kept.sum(), same.sum() * mean.shape[2])
        flat, flat_variance = (values[kept][:, same].reshape(shape) for values in (mean, variance))
        row = total_variance(flat, flat_variance)
        row |= {group: explained_variance(features[kept], flat) for group, features in leaves.items()}
        if leaves:
            row["interaction"] = row["epistemic"] - row["science"] - row["network"]
        for name, values in row.items():
            parts[name][same] = values.reshape(-1, mean.shape[2])
    attrs = {name: {"long_name": MEANINGS[name]} for name in names}
    return labelled(parts, means, int((~ok).sum(axis=0).max(initial=0)), attrs)


def total_variance(mean: np.ndarray, variance: np.ndarray) -> dict[str, np.ndarray]:
    """Return total, aleatoric and epistemic `(time,)` from conditional moments `(draw, time)`.

    Shapes: NaN where there is no draw. Of one draw only the aleatoric part is known, the others are NaN.
    """
    if mean.shape[0] < 2:
        unknown = np.full(mean.shape[1], np.nan)
        return {"total": unknown, "aleatoric": variance[0] if len(variance) else unknown, "epistemic": unknown}
    # Variance knows no origin; near zero the squares lose no digits.
    centred = mean - mean[0]
    return {
        "total": (variance + centred**2).mean(axis=0) - centred.mean(axis=0) ** 2,
        "aleatoric": variance.mean(axis=0),
        "epistemic": centred.var(axis=0),
    }


def explained_variance(features: np.ndarray, mean: np.ndarray) -> np.ndarray:
    r"""Estimate $\mathrm{Var}[E(m \mid x)]$ `(time,)` from draws of `x` and `m` (a given-data estimator).

    $\bar R^2 \, \mathrm{Var}[m]$, with the adjusted $\bar R^2 = 1 - (1 - R^2)(n - 1)/(n - 1 - p)$, clipped to $[0, 1]$,
    of least squares on every scalar of `x`, standardised, then the squares and the pairwise products, in that order and
    as many as keep $p \le n / 20$. More scalars than that are replaced by their leading principal components.

    What it cannot see: it is a lower bound as far as a quadratic misses how `x` determines `m` (weights of a network
    with sign symmetry, or a network too large for its principal components to say what it does); `decompose` then shows
    that share as interaction. The adjustment takes the draws as independent: chains that mix slowly in both `x` and `m`
    inflate the share, the more so the more features there are.

    Shapes: `features` is `(draw, feature)`, `mean` is `(draw, time)`, both finite; NaN for fewer than 20 draws.
    Units: the square of those of `mean`; those of `features` do not matter.
    Source: Plischke, Borgonovo & Smith (2013), Global sensitivity measures from given data.
    """
    draws = mean.shape[0]
    if draws < DRAWS_PER_FEATURE:
        return np.full(mean.shape[1], np.nan)
    basis = _orthonormal(_design(features, draws // DRAWS_PER_FEATURE))
    centred = mean - mean.mean(axis=0)
    square = (centred**2).sum(axis=0)
    left = square - ((basis.T @ centred) ** 2).sum(axis=0)
    adjusted = square - left * (draws - 1) / (draws - 1 - basis.shape[1])
    return np.clip(adjusted, 0.0, square) / draws


def _design(features: np.ndarray, most: int) -> np.ndarray:
    """Centred columns, at most `most`: linear ones, or principal components, then quadratic ones."""
    varying = features[:, np.ptp(features, axis=0) > 0]
    scores = (varying - varying.mean(axis=0)) / varying.std(axis=0)
    size = scores.shape[1]
    if size > most:
        return _principal_components(scores, most)
    row, column = np.triu_indices(size, k=1)
    first = np.concatenate([np.arange(size), row])[: most - size]
    second = np.concatenate([np.arange(size), column])[: most - size]
    quadratic = scores[:, first] * scores[:, second]
    return np.concatenate([scores, quadratic - quadratic.mean(axis=0)], axis=1)


def _principal_components(scores: np.ndarray, most: int) -> np.ndarray:
    draws, size = scores.shape
    wide = size > draws
    gram = scores @ scores.T if wide else scores.T @ scores
    values, vectors = linalg.eigh(gram, subset_by_index=(len(gram) - most, len(gram) - 1))
    return vectors * np.sqrt(values.clip(min=0)) if wide else scores @ vectors


def _orthonormal(design: np.ndarray) -> np.ndarray:
    """A basis of the columns, fewer where they depend on each other: the square of a two-valued leaf is no news."""
    if not design.shape[1]:
        return design
    left, values, _ = np.linalg.svd(design, full_matrices=False)
    return left[:, values > 1e-6 * values[0]]


def _leaves(fc: xr.DataTree) -> dict[str, np.ndarray]:
    """Features `(draw, feature)` of each group; none unless the model has both."""
    posterior = fc["posterior"].to_dataset() if "posterior" in fc.children else xr.Dataset()
    found = {}
    for group in GROUPS:
        scalars = [
            leaf.transpose("chain", "draw", ...).values.reshape(leaf.sizes["chain"] * leaf.sizes["draw"], -1)
            for leaf in posterior.data_vars.values()
            if leaf.attrs.get("group") == group
        ]
        if scalars:
            found[group] = np.concatenate(scalars, axis=1, dtype=float)
    return found if len(found) == len(GROUPS) else {}


def chosen(means: xr.Dataset, observables: Sequence[str] | None) -> xr.Dataset:
    """The observables that are asked for, all of one kind.

    Raises: MismatchError for an unknown one, or several that have different dimensions.
    """
    unknown = [name for name in observables or () if name not in means]
    if unknown:
        raise MismatchError(
            f"the forecast has no observable {', '.join(unknown)}; it has {', '.join(map(str, means.data_vars))}"
        )
    found = means if observables is None else means[list(observables)]
    if len({_dims(variable) for variable in found.data_vars.values()}) > 1:
        kinds = "; ".join(f"{name} has {', '.join(_dims(v))}" for name, v in found.data_vars.items())
        raise MismatchError(f"the observables have different dimensions ({kinds}): decompose(fc, [names of one kind])")
    return found


def _dims(variable: xr.DataArray) -> tuple[str, ...]:
    return tuple(str(dim) for dim in variable.dims if dim not in ("chain", "draw"))


def stacked(moments: xr.Dataset, means: xr.Dataset) -> np.ndarray:
    """All observables as `(draw, observable, datum)`, the places of a field one after the other."""
    values = [moments[name].transpose("chain", "draw", *_dims(means[name])).values for name in means]
    return np.stack([value.reshape(value.shape[0] * value.shape[1], -1) for value in values], axis=1)


def labelled(
    parts: dict[str, np.ndarray], means: xr.Dataset, failed: int, attrs: Mapping[str, Mapping[str, str]]
) -> xr.Dataset:
    """Parts of each observable `(observable, datum)` as a dataset, with the attributes of each part."""
    names = [str(name) for name in means.data_vars]
    units = [str(means[name].attrs.get("units", "")) for name in names]
    dims = _dims(next(iter(means.data_vars.values())))
    shape = (len(names), *(means.sizes[dim] for dim in dims))
    variables = {
        name: (("observable", *dims), values.reshape(shape), dict(attrs[name])) for name, values in parts.items()
    }
    coords = {
        "observable": names,
        "units": ("observable", units),
        **{dim: means[dim].variable for dim in dims if dim in means.coords},
    }
    return xr.Dataset(variables, coords=coords, attrs={"failed_draws": failed})
