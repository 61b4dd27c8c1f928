"""Decomposition of the predictive variance: noise, science, network, process and forcings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import xarray as xr

from .._statistics.blocks import blocks_of, draws_at
from .._statistics.regression import (
    DRAWS_PER_FEATURE,
    basis,
    explained_by,
    explained_elsewhere,
    predicted,
)
from ..errors import MismatchError
from .decomposition_shares import GROUPS, KNOWN, PROCESS, Decomposition
from .draws_at_data import finite_throughout, merged
from .matching import check_forecast

MEANINGS = {
    "total": "total variance",
    "aleatoric": "variance of the observation given the draw",
    "epistemic": "variance of the conditional mean over draws",
    "science": "epistemic variance that knowing the science leaves would remove; at least, where "
    "the split is unknown",
    "network": "epistemic variance that knowing the network leaves would remove; at least, where "
    "the split is unknown",
    "process": "epistemic variance that would be left if all but the path of states were known; 0 "
    "where unknown",
    "interaction": "epistemic variance less science, network and process; 0 where one of them is "
    "unknown",
    "unknown": "epistemic variance that no other part is known to have; 0 where the split is known",
    "split_known": "whether exchanged draws tell all parts of the epistemic variance",
    "forcing": "epistemic variance that knowing which member of the forcings comes true would "
    "remove",
    "science_least": "what knowing the science leaves would remove at least",
    "network_least": "what knowing the network leaves would remove at least",
}
# Exchanged draws may differ from the posterior by these shares of the variance, besides chance.
_UNLIKE_VARIANCE, _UNLIKE_SHARE, _MOST_FAILED = 0.1, 0.05, 0.05
_COARSEST = 0.25


def decompose(fc: xr.DataTree, observables: Sequence[str] | None = None) -> Decomposition:
    r"""Split the predictive variance of each observable at each time (law of total variance).

    $\mathrm{Var}[y] = E[\mathrm{Var}(y \mid \theta)] + \mathrm{Var}[E(y \mid \theta)]$, `total =
    aleatoric + epistemic`; the total is computed on its own, from $E[v + m^2] - E[m]^2$. The
    epistemic part, the variance of $m = E(y \mid \theta)$, is unbiased for independent chains or
    members: a share $1/n$ is not lost. A single chain counts as independent draws.

    With science and network leaves, the epistemic part is split by first-order conditional
    variances under the joint posterior. `science` $= \mathrm{Var}[E(m \mid \text{science})]$ would
    vanish on average if the science leaves were known; `network` likewise. `interaction` is the
    remainder. It is positive if only both groups together determine the mean: a true interaction,
    or groups that compensate each other. It is negative where either group alone tells the same, so
    that both count it.

    Science and network are covariances of the means of two draws that share only that group, which
    `forecast` makes from 100 draws on. The standard error of such a share of the epistemic variance
    is about `attrs["share_error"]`, $1/\sqrt{n}$ for $n$ independent draws, or less. Such pairs can
    be made where the groups are independent under the posterior, or depend on each other linearly.
    If these are unlike posterior draws in mean, variance, or the part explained by the group's
    leaves, `split_known` is false. There science and network are what they explain at least, and
    `unknown` is the rest. So science, network, process, interaction and unknown add up to the
    epistemic variance everywhere, and so do their means.

    If states have noise of their own (`ProcessNoise`, `SDE`) or a layer has states at knots,
    `process` is the epistemic variance left if all else were known. It grows with the horizon, and
    is not observation noise. It is in no other part.

    `science_least` and `network_least` are known everywhere: regressions on the draws, which say
    what a group explains at least. The rest may be interaction or belong to the group.

    For a forcing ensemble the epistemic part includes the forcings, and `forcing` is
    $\mathrm{Var}[E(m \mid \text{forcings})]$, from draws that share a member; science and network
    are not split then.

    Failed draws are left out (`attrs["failed_draws"]`). With one usable draw only the aleatoric
    part is known, and the others are NaN; without any, all are. The split of fewer than 20 is
    unknown. A forecast in a file is read block by block: memory is bounded whatever the number of
    times and draws.

    `print` shows the shares of the variance in per cent, near, in the middle and far from the end
    of the fitted data.

    Args:
        fc: the result of `forecast`.
        observables: observables with the same dimensions; all by default.

    Returns:
        A dataset with the parts, which prints as a table of their shares (`shares()` returns it).

    Shapes: each variable is `(observable, time, …)`, over the places of a field.

    Units: the square of the observable's, which the coordinate `units` names.

    Raises:
        MismatchError: if `fc` is no forecast, for an unknown observable, or for observables with
            different dimensions.

    Source: Saltelli et al. (2008), Global Sensitivity Analysis; Janon et al. (2014), Asymptotic
    normality and efficiency of two Sobol index estimators; Kucherenko, Tarantola & Annoni (2012),
    for dependent inputs.

    Example:
        ```python
        parts = bd.decompose(bd.forecast(model, post, data))
        print(parts)
        shares = parts.shares()
        ```
    """
    check_forecast(fc, "conditional_mean", "conditional_variance")
    means = chosen(fc["conditional_mean"].to_dataset(), observables)
    variances = fc["conditional_variance"].to_dataset()
    split = _Split(fc)
    # 1. The parts that this forecast allows.
    member = _forcing_members(fc)
    names = ["total", "aleatoric", "epistemic", *(split.names if member is None else ["forcing"])]
    parts = {name: np.empty(block_shape(means), bool if name == KNOWN else float) for name in names}
    failed = 0
    for row, (name, mean) in enumerate(means.data_vars.items()):
        ok = whole_draws(mean, variances[name], lambda v: ~np.isnan(v))
        failed = max(failed, int((~ok).sum()))
        of_chain = np.repeat(np.arange(mean.sizes["chain"]), mean.sizes["draw"])
        chain = of_chain if member is None else member
        split.look_at(str(name), ok, chain)
        # 2. Block by block, so that memory is bounded.
        for at in blocks_of(mean):
            values = draws_at(mean, at)
            found = total_variance(values[ok], draws_at(variances[name], at)[ok], chain[ok])
            if member is None:
                found |= split.parts(values, at, found["epistemic"])
            else:
                found["forcing"] = variance_between(values[ok], member[ok])
            for part, numbers in found.items():
                put(parts[part][row], at, numbers)
    attributes = {name: {"long_name": MEANINGS[name]} for name in names}
    result = labelled(parts, means, failed, attributes)
    if split.leaves and member is None:
        result.attrs["share_error"] = split.error
    span = {name: fc.attrs[name] for name in ("train_start", "train_end") if name in fc.attrs}
    return Decomposition(result.data_vars, result.coords, result.attrs | span)


def _forcing_members(fc: xr.DataTree) -> np.ndarray | None:
    """The member of an ensemble of forcings that each draw had; None without an ensemble."""
    group = "sample_stats_predictions"
    stats = fc[group].to_dataset() if group in fc.children else xr.Dataset()
    return stats["forcing_member"].values.ravel() if "forcing_member" in stats else None


def variance_between(mean: np.ndarray, group: np.ndarray) -> np.ndarray:
    """The variance between means of groups, `(time,)`, unbiased for few draws in each.

    It is the mean product of two draws of one group, less that of two draws of different ones.

    Shapes: `mean` is `(draw, time)`, `group` `(draw,)`. NaN where no group has two draws, or there
    is one group.

    Returns:
        The variance.
    """
    _, of_draw, number = np.unique(group, return_inverse=True, return_counts=True)
    # Pairs of draws within a group, and of different groups.
    within = (number * (number - 1)).sum()
    across = len(mean) ** 2 - (number**2).sum()
    if not within or not across:
        return np.full(mean.shape[1], np.nan)
    centred = mean - mean.mean(axis=0)
    sums = _sums_by_group(centred, of_draw)
    together = (sums**2).sum(axis=0)
    return (together - (centred**2).sum(axis=0)) / within + together / across


def _sums_by_group(values: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Sums `(group, time)` of the values `(draw, time)` of each group, numbered from 0."""
    return np.stack([values[group == g].sum(axis=0) for g in range(group.max() + 1)])


def total_variance(
    mean: np.ndarray, variance: np.ndarray, chain: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    r"""The law of total variance from conditional moments `(draw, time)`.

    $E[m]^2$ is the mean product of draws of different chains. It is unbiased for independent
    chains, however correlated the draws within one are. Draws of a single chain are taken as
    independent.

    Shapes: `chain` is `(draw,)`.

    Returns:
        `total`, `aleatoric` and `epistemic` variances, `(time,)`. All are NaN without a draw; only
        the aleatoric one is known for a single draw.
    """
    draws = len(mean)
    if draws < 2:
        unknown = np.full(mean.shape[1], np.nan)
        aleatoric = variance[0] if len(variance) else unknown
        return {"total": unknown, "aleatoric": aleatoric, "epistemic": unknown}
    # 1. Centre twice: first at a draw, so that squares of large means lose no digits.
    centred = mean - mean[0]
    centred = centred - centred.mean(axis=0)
    # 2. E[m]² from pairs of different chains: all draws together sum to zero.
    of_chain = np.arange(draws)
    sums = centred
    if chain is not None and (chain != chain[0]).any():
        of_chain = np.unique(chain, return_inverse=True)[1]
        sums = _sums_by_group(centred, of_chain)
    pairs = draws**2 - (np.bincount(of_chain) ** 2).sum()
    square_of_mean = -(sums**2).sum(axis=0) / pairs
    return {
        "total": (variance + centred**2).mean(axis=0) - square_of_mean,
        "aleatoric": variance.mean(axis=0),
        "epistemic": (centred**2).mean(axis=0) - square_of_mean,
    }


class _Split:
    """The split of the epistemic variance by exchanged draws and regressions, by observable."""

    def __init__(self, fc: xr.DataTree):
        self.leaves = _group_features(fc)
        self._exchanged = None
        if "exchanged_mean" in fc.children:
            self._exchanged = fc["exchanged_mean"].to_dataset()
        number = 0 if self._exchanged is None else self._exchanged.sizes["exchange"]
        self.error = float(number**-0.5) if number else float("nan")
        self._variable: xr.DataArray | None = None
        self._pairs: dict[str, tuple[xr.DataArray, np.ndarray]] = {}
        self._bases: dict[tuple[str, bytes], np.ndarray | None] = {}

    @property
    def names(self) -> list[str]:
        """The parts of the epistemic variance that this forecast allows."""
        process = [PROCESS] if PROCESS in self.leaves else []
        if "network" in self.leaves:
            bounds = [f"{group}_least" for group in GROUPS]
            return [*GROUPS, *process, "interaction", "unknown", *bounds, KNOWN]
        return [*process, "unknown", KNOWN] if process else []

    def look_at(self, name: str, ok: np.ndarray, chain: np.ndarray) -> None:
        """Select an observable and its draws that are finite throughout."""
        self._ok = ok
        self._pairs = {}
        self._chains = int(chain[-1]) + 1
        # Regressions are tried on other chains than they were fitted to.
        draws = np.arange(len(chain)) * 2 >= len(chain)
        self._half = 2 * chain >= self._chains if self._chains > 1 else draws
        self._variable = None if self._exchanged is None else self._exchanged[name]
        if self._variable is None or not self.leaves or not ok.any():
            return
        index = self._variable["exchange"].values
        for group in self.leaves:
            of_group = self._variable.sel(kept=group, drop=True)
            finite = finite_throughout(of_group)
            if finite[ok[index]].sum() >= (1 - _MOST_FAILED) * ok[index].sum():
                self._pairs[group] = of_group, np.flatnonzero(finite & ok[index])

    def parts(
        self, mean: np.ndarray, at: dict[str, slice], epistemic: np.ndarray
    ) -> dict[str, np.ndarray]:
        """The parts of the epistemic variance, with lower bounds, for means `(draw, datum)`."""
        if not self.leaves:
            return {}
        found = {}
        if self._ok.sum() < DRAWS_PER_FEATURE:
            unknown = np.full(len(epistemic), np.nan)
            bounds = (f"{group}_least" for group in GROUPS)
            return self._adding_up(dict.fromkeys((*self.leaves, *bounds), unknown), epistemic)
        whole = mean[self._ok]
        spread = whole.var(axis=0)
        for group in self.leaves:
            found[group] = np.full(len(epistemic), np.nan)
            if group in GROUPS:
                # Regression on the features of the group, tested on other chains.
                columns = self._basis(group, self._ok)
                if self._chains == 1:
                    least = explained_by(columns, whole)
                else:
                    least = explained_elsewhere(columns, whole, self._half[self._ok])
                scale = np.divide(epistemic, spread, out=np.ones_like(spread), where=spread > 0)
                found[f"{group}_least"] = least * scale
            if group in self._pairs:
                of_group, some = self._pairs[group]
                index = of_group["exchange"].values[some]
                held = np.zeros(len(mean), bool)
                held[index] = True
                # Pairs of draws that share the group and nothing else.
                other = draws_at(of_group, at)[some]
                columns = self._basis(group, held)
                share = shared(mean[index], other, columns, self._half[index])
                found[group] = share * epistemic
        if PROCESS in found:
            found[PROCESS] = epistemic - found[PROCESS]
        return self._adding_up(found, epistemic)

    def _adding_up(
        self, found: dict[str, np.ndarray], epistemic: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Parts that add up to the epistemic variance, with `unknown` in place of NaN."""
        parts = [name for name in (*GROUPS, PROCESS) if name in found]
        known = np.isfinite([found[name] for name in parts]).all(axis=0)
        # Zeros that are NaN where the epistemic variance is.
        zero = 0.0 * epistemic
        at_least = {}
        for name in parts:
            least = np.nan_to_num(found.get(f"{name}_least", np.zeros(len(known))))
            at_least[name] = np.where(np.isfinite(found[name]), found[name], least + zero)
        rest = epistemic - sum(at_least.values())
        if "network" not in found:
            # Parameters have everything but the process.
            rest = np.where(known, 0.0, rest)
        found = found | at_least | {KNOWN: known}
        found["interaction"] = np.where(known, rest, zero)
        found["unknown"] = np.where(known, zero, rest)
        return {name: found[name] for name in self.names}

    def _basis(self, group: str, some: np.ndarray) -> np.ndarray | None:
        """A basis of the features of a group in some draws, which observables mostly share."""
        key = group, some.tobytes()
        if key not in self._bases:
            self._bases[key] = basis(self.leaves[group][some])
        return self._bases[key]


def shared(
    mean: np.ndarray, other: np.ndarray, columns: np.ndarray | None, half: np.ndarray
) -> np.ndarray:
    """Return the first-order share `(datum,)` of a group of leaves, from pairs that share
    nothing else.

    NaN if the pairs are unlike posterior draws: mean, variance, or covariance with a regression on
    the group's features differ by more than a little and chance.

    Shapes: `mean` and `other` are `(draw, datum)`, `columns` a basis of the group's features
    `(draw, p)`, `half` is `(draw,)`.

    Returns:
        The shares.
    """
    draws = len(mean)
    if columns is None:
        return np.full(mean.shape[1], np.nan)
    # 1. Moments of both draws of a pair, in units of the pooled variance.
    one = mean - mean.mean(axis=0)
    two = other - other.mean(axis=0)
    squares = (one**2).mean(axis=0), (two**2).mean(axis=0)
    pooled = (squares[0] + squares[1]) / 2
    pooled = np.where(pooled > 0, pooled, 1.0)
    foreseen = predicted(columns, mean, half)
    with_one = (foreseen * one).mean(axis=0) / pooled
    with_two = (foreseen * two).mean(axis=0) / pooled
    share = (one * two).mean(axis=0) / pooled
    # 2. The standard error of a variance, by its fourth moment.
    fourth = (one**4).mean(axis=0) - squares[0] ** 2
    fourth = fourth + ((two**4).mean(axis=0) - squares[1] ** 2)
    error = np.sqrt(fourth / draws) / pooled
    shift = np.abs(mean.mean(axis=0) - other.mean(axis=0)) / np.sqrt(pooled)
    # 3. Pairs count if both draws look like posterior draws.
    alike = (
        (error <= _COARSEST)
        & (np.abs(squares[1] - squares[0]) / pooled <= _UNLIKE_VARIANCE + 2 * error)
        & (shift <= _UNLIKE_VARIANCE + 2 * np.sqrt(2 / draws))
        & (np.abs(with_one - with_two) <= _UNLIKE_SHARE + 2 / np.sqrt(draws))
    )
    return np.where(alike, np.clip(share, 0.0, 1.0), np.nan)


def _group_features(fc: xr.DataTree) -> dict[str, np.ndarray]:
    """Features `(draw, feature)` of the groups of leaves by part; empty for a single group."""
    posterior = fc["posterior"].to_dataset() if "posterior" in fc.children else xr.Dataset()
    found = {}
    for group in GROUPS:
        leaves = posterior.filter_by_attrs(group=group).data_vars.values()
        if leaves:
            found[group] = np.concatenate([merged(leaf) for leaf in leaves], axis=1, dtype=float)
    both = found if len(found) == len(GROUPS) else {}
    kept = fc["exchanged_mean"].dataset["kept"].values if "exchanged_mean" in fc.children else ()
    if found and PROCESS in kept:
        # All but the path of the process stays.
        return both | {PROCESS: np.concatenate([*found.values()], axis=1)}
    return both


def chosen(means: xr.Dataset, observables: Sequence[str] | None) -> xr.Dataset:
    """Return the requested observables, which must have the same dimensions.

    Returns:
        Their means.

    Raises:
        MismatchError: for an unknown one, or several that have different dimensions.
    """
    unknown = [name for name in observables or () if name not in means]
    if unknown:
        raise MismatchError(
            f"the forecast has no observable {', '.join(unknown)}; it has "
            f"{', '.join(map(str, means.data_vars))}"
        )
    found = means if observables is None else means[list(observables)]
    dims = {name: _data_dims(variable) for name, variable in found.data_vars.items()}
    if len({*dims.values()}) > 1:
        kinds = "; ".join(f"{name} has {', '.join(own)}" for name, own in dims.items())
        raise MismatchError(
            f"the observables have different dimensions ({kinds}): decompose(fc, [names of one "
            "kind])"
        )
    return found


def _data_dims(variable: xr.DataArray) -> tuple[str, ...]:
    return tuple(str(dim) for dim in variable.dims if dim not in ("chain", "draw"))


def whole_draws(
    mean: xr.DataArray, variance: xr.DataArray, known: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """Draws with a finite mean and a known variance at all times.

    Returns:
        A flag for each draw.
    """
    ok = np.ones(mean.sizes["chain"] * mean.sizes["draw"], bool)
    for at in blocks_of(mean):
        there = np.isfinite(draws_at(mean, at)) & known(draws_at(variance, at))
        ok &= np.all(there, axis=1)
    return ok


def block_shape(means: xr.Dataset) -> tuple[int, ...]:
    """The shape of a part of the variance, `(observable, time, …)`.

    Returns:
        The shape.
    """
    one = next(iter(means.data_vars.values()))
    return len(means), *(one.sizes[dim] for dim in _data_dims(one))


def put(part: np.ndarray, at: Mapping[str, slice], numbers: np.ndarray) -> None:
    """Put the numbers `(datum,)` of a block into the place of that block."""
    block = part[tuple(at.values())]
    block[...] = numbers.reshape(block.shape)


def labelled(
    parts: dict[str, np.ndarray],
    means: xr.Dataset,
    failed: int,
    attrs: Mapping[str, Mapping[str, str]],
) -> xr.Dataset:
    """Return variance parts `(observable, time, …)` as a dataset with attributes.

    Returns:
        The dataset, with the coordinate `units`.
    """
    names = [str(name) for name in means.data_vars]
    units = [str(means[name].attrs.get("units", "")) for name in names]
    dims = _data_dims(next(iter(means.data_vars.values())))
    variables = {
        name: (("observable", *dims), values, dict(attrs[name])) for name, values in parts.items()
    }
    coords = {
        "observable": names,
        "units": ("observable", units),
        **{dim: means[dim].variable for dim in dims if dim in means.coords},
    }
    return xr.Dataset(variables, coords=coords, attrs={"failed_draws": failed})
