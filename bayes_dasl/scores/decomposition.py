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
# Largest differences between exchanged draws and the posterior, beyond sampling error: in units of
# the variance, and of the share that is explained by a group; and the largest share of failures.
_UNLIKE_VARIANCE, _UNLIKE_SHARE, _MOST_FAILED = 0.1, 0.05, 0.05
_COARSEST = 0.25


def decompose(fc: xr.DataTree, observables: Sequence[str] | None = None) -> Decomposition:
    r"""Split the predictive variance of each observable at each time (law of total variance).

    $\mathrm{Var}[y] = E[\mathrm{Var}(y \mid \theta)] + \mathrm{Var}[E(y \mid \theta)]$, `total =
    aleatoric + epistemic`

    Here $y$ is a datum and $\theta$ a posterior draw. The total is computed independently, from
    $E[v + m^2] - E[m]^2$ with $m = E(y \mid \theta)$ and $v = \mathrm{Var}(y \mid \theta)$. The
    epistemic part, the variance of $m$, is unbiased for independent chains or members. A single
    chain counts as independent draws.

    If the model has science and network leaves, the epistemic part is split by first-order
    conditional variances under the joint posterior. `science` $= \mathrm{Var}[E(m \mid
    \text{science})]$ is the variance that would vanish on average if the science leaves were known;
    `network` likewise. `interaction` is the remainder. It is positive if only both groups together
    determine the mean: a true interaction, or groups that compensate each other. It is negative if
    both groups carry the same information, which then counts twice.

    Science and network are covariances of the means of two draws that share only this group of
    leaves. `forecast` makes such pairs from at least 100 draws. The standard error of a share of
    the epistemic variance is at most about `attrs["share_error"]`, $1/\sqrt{n}$ for $n$ independent
    draws. Pairs can be made if the groups are independent under the posterior, or depend on each
    other linearly. Pairs are rejected if they differ from posterior draws in mean, variance, or the
    part explained by the group's leaves. `split_known` is then false, science and network are lower
    bounds, and `unknown` is the rest. So science, network, process, interaction and unknown always
    add up to the epistemic variance, and so do their means.

    If states have process noise (`ProcessNoise`, `SDE`) or a layer has states at knots, `process`
    is the epistemic variance that is left if all else is known. It grows with the horizon. It is
    not observation noise, and is included in no other part.

    `science_least` and `network_least` are always known: regressions on the draws give lower bounds
    of what a group explains. The rest may be interaction or belong to the group.

    For a forcing ensemble the epistemic part includes the forcings. `forcing` is $\mathrm{Var}[E(m
    \mid \text{forcings})]$, from draws that share a member of the ensemble. Science and network are
    then not split.

    Failed draws are left out (`attrs["failed_draws"]`). With one usable draw only the aleatoric
    part is known, and the others are NaN; with none, all are NaN. With fewer than 20 usable draws
    the split is unknown. A forecast in a file is read block by block: memory is bounded whatever
    the number of times and draws.

    `print` shows the shares of the variance in per cent: for the fitted times, and near, in the
    middle and far after them.

    Args:
        fc: the result of `forecast`.
        observables: observables with the same dimensions; all by default.

    Returns:
        A dataset with the parts, which prints as a table of their shares (`shares()` returns it).

    Shapes: each variable is `(observable, time, …)`, followed by the places of a field.

    Units: the squared units of the observable, which are in the coordinate `units`.

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
    """Return the member of the forcing ensemble that drove each draw; None without an ensemble."""
    group = "sample_stats_predictions"
    stats = fc[group].to_dataset() if group in fc.children else xr.Dataset()
    return stats["forcing_member"].values.ravel() if "forcing_member" in stats else None


def variance_between(mean: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Return the variance between the means of groups of draws, unbiased for small groups.

    It is the mean product of two draws of one group, minus the mean product of two draws of
    different groups.

    Args:
        mean: the values of the draws, `(draw, time)`.
        group: the group of each draw, `(draw,)`.

    Returns:
        The variance, `(time,)`. It is NaN if no group has two draws, or there is only one group.
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
    """Sum the values `(draw, time)` of each group of draws.

    Args:
        values: the values.
        group: the number of each draw's group, from 0.

    Returns:
        Sums `(group, time)`.
    """
    return np.stack([values[group == g].sum(axis=0) for g in range(group.max() + 1)])


def total_variance(
    mean: np.ndarray, variance: np.ndarray, chain: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    r"""Return the parts of the law of total variance from conditional moments.

    The square $E[m]^2$ of the mean is estimated by the mean product of draws of different chains.
    This is unbiased for independent chains, whatever the autocorrelation within a chain. Draws of a
    single chain are taken as independent.

    Args:
        mean: the conditional mean $m$ in each draw, `(draw, time)`.
        variance: the conditional variance in each draw, `(draw, time)`.
        chain: the chain of each draw, `(draw,)`; None for a single chain.

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
    """The split of the epistemic variance of a forecast by exchanged draws and regressions.

    Call `look_at` for each observable, then `parts` for each of its blocks.

    Args:
        fc: the forecast.
    """

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
        """The names of the parts of the epistemic variance that this forecast allows."""
        process = [PROCESS] if PROCESS in self.leaves else []
        if "network" in self.leaves:
            bounds = [f"{group}_least" for group in GROUPS]
            return [*GROUPS, *process, "interaction", "unknown", *bounds, KNOWN]
        return [*process, "unknown", KNOWN] if process else []

    def look_at(self, name: str, ok: np.ndarray, chain: np.ndarray) -> None:
        """Select an observable, and those of its draws that are finite at all times.

        Args:
            name: the observable.
            ok: flags of the draws with a finite mean and variance at all times.
            chain: the chain of each draw.
        """
        self._ok = ok
        self._pairs = {}
        self._chains = int(chain[-1]) + 1
        # Regressions are fitted to one half of the chains and tested on the other half.
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
        """Return the parts of the epistemic variance in one block of the selected observable.

        Args:
            mean: the conditional means, `(draw, datum)`.
            at: the block, as a slice of each dimension.
            epistemic: the epistemic variance, `(datum,)`.

        Returns:
            Parts and their lower bounds, `(datum,)` by name.
        """
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
        """Complete the parts with `interaction` or `unknown`, so that they add up.

        Args:
            found: science, network and process as far as they exist, NaN where unknown; and lower
                bounds.
            epistemic: the epistemic variance, the sum of all parts.

        Returns:
            All parts, with lower bounds in place of NaN.
        """
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
            # Without a network, all epistemic variance but the process belongs to parameters.
            rest = np.where(known, 0.0, rest)
        found = found | at_least | {KNOWN: known}
        found["interaction"] = np.where(known, rest, zero)
        found["unknown"] = np.where(known, zero, rest)
        return {name: found[name] for name in self.names}

    def _basis(self, group: str, some: np.ndarray) -> np.ndarray | None:
        """Return a cached basis of the features of a group in some draws.

        Observables mostly have the same finite draws, and so share the basis.
        """
        key = group, some.tobytes()
        if key not in self._bases:
            self._bases[key] = basis(self.leaves[group][some])
        return self._bases[key]


def shared(
    mean: np.ndarray, other: np.ndarray, columns: np.ndarray | None, half: np.ndarray
) -> np.ndarray:
    """Return the first-order share of a group of leaves, from pairs of draws that share this group.

    A share is NaN if the second draws of the pairs differ from posterior draws by more than
    sampling error and a small tolerance. Mean, variance, and the covariance with a regression on
    the group's features are compared.

    Args:
        mean: the mean in the first draw of each pair, `(draw, datum)`.
        other: the mean in the second draw of each pair, `(draw, datum)`.
        columns: a basis of the group's features, `(draw, feature)`; None if there is none.
        half: flags that divide the draws into halves, `(draw,)`, for the regression.

    Returns:
        The shares of the epistemic variance, `(datum,)`.
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
    """Return the values of the leaves of each group in each draw, as features for regressions.

    Returns:
        Features `(draw, feature)` by part: "science" and "network" if the model has both, and
        "process" for all leaves but the process noise.
    """
    posterior = fc["posterior"].to_dataset() if "posterior" in fc.children else xr.Dataset()
    found = {}
    for group in GROUPS:
        leaves = posterior.filter_by_attrs(group=group).data_vars.values()
        if leaves:
            found[group] = np.concatenate([merged(leaf) for leaf in leaves], axis=1, dtype=float)
    both = found if len(found) == len(GROUPS) else {}
    kept = fc["exchanged_mean"].dataset["kept"].values if "exchanged_mean" in fc.children else ()
    if found and PROCESS in kept:
        # All leaves but the path of the process are kept.
        return both | {PROCESS: np.concatenate([*found.values()], axis=1)}
    return both


def chosen(means: xr.Dataset, observables: Sequence[str] | None) -> xr.Dataset:
    """Return the requested observables, which must have the same dimensions.

    Args:
        means: the conditional means of all observables.
        observables: the requested observables; None for all.

    Returns:
        The conditional means of these observables.

    Raises:
        MismatchError: for an unknown observable, or observables with different dimensions.
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
    """Flag the draws with a finite mean and a known variance at all times.

    Args:
        mean: the conditional mean.
        variance: the conditional variance.
        known: a function that flags the known values of an array of variances.

    Returns:
        A flag for each draw of all chains.
    """
    ok = np.ones(mean.sizes["chain"] * mean.sizes["draw"], bool)
    for at in blocks_of(mean):
        there = np.isfinite(draws_at(mean, at)) & known(draws_at(variance, at))
        ok &= np.all(there, axis=1)
    return ok


def block_shape(means: xr.Dataset) -> tuple[int, ...]:
    """Return the shape of a part of the variance, `(observable, time, …)`.

    Args:
        means: the conditional means of the observables.

    Returns:
        The shape.
    """
    one = next(iter(means.data_vars.values()))
    return len(means), *(one.sizes[dim] for dim in _data_dims(one))


def put(part: np.ndarray, at: Mapping[str, slice], numbers: np.ndarray) -> None:
    """Write the numbers of a block into an array.

    Args:
        part: the array, `(time, …)`.
        at: the block, as a slice of each dimension.
        numbers: its numbers, `(datum,)`.
    """
    block = part[tuple(at.values())]
    block[...] = numbers.reshape(block.shape)


def labelled(
    parts: dict[str, np.ndarray],
    means: xr.Dataset,
    failed: int,
    attrs: Mapping[str, Mapping[str, str]],
) -> xr.Dataset:
    """Return parts of the variance as a dataset with labels.

    Args:
        parts: arrays `(observable, time, …)` by name.
        means: the conditional means, which have the coordinates and units.
        failed: the number of failed draws, for the attributes.
        attrs: the attributes of each part.

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
