"""Draws as an xarray.DataTree: the groups of posteriors and forecasts, in ArviZ's layout."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float

from .._jax.tree import parts_inside, short_names
from .._statistics.describe_distributions import bounds, chosen_bounds, describe_distribution
from .._statistics.importance import jittered_constants
from ..data.datasets import DATUM, JOINT, index_of
from ..data.layer_inputs import OwnRows
from ..model import Model
from ..random import Dependent, RandomLeaf, paths
from .new_members import differ

# The fewest draws of the group `prior_predictive`, and the most numbers in it.
_FEWEST = 50
_MOST = 2 * 10**6


def names(model: Model) -> dict[str, str]:
    """Return the name of every random leaf in results: the shortest unambiguous suffix of its path.

    Returns:
        Names by path.
    """
    leaves = paths(model)
    least = {path: leaf.own for path, leaf in leaves.items()}
    return short_names(leaves, (*model.observables, model.index, "chain", "draw"), least)


def draws_dataset(model: Model, draws: Mapping[str, np.ndarray]) -> xr.Dataset:
    """Return draws of all random leaves as a dataset.

    Args:
        model: the model.
        draws: draws `(chain, draw, …)` by path.

    Returns:
        A variable for each random leaf, with its path, group, units, prior and bounds.
    """
    short = names(model)
    variables, coordinates = {}, {}
    for path, leaf in paths(model).items():
        values = np.asarray(draws[path])
        name = short[path]
        attributes = {
            "path": leaf.path,
            "group": leaf.group,
            "units": leaf.units,
            "prior": describe_distribution(leaf.distribution),
            "pooled": int(is_random_effect(leaf)),
            **bounds(leaf.distribution.support),
        }
        plain = [f"{name}_dim_{i}" for i in range(len(leaf.dims), values.ndim - 2)]
        variables[name] = (("chain", "draw", *leaf.dims, *plain), values, attributes)
        coordinates |= {dim: np.asarray(members) for dim, members in leaf.dims.items()}
    return with_coordinates(xr.Dataset(variables, coordinates))


def pushed_draws(model: Model, post: xr.DataTree, draws: Mapping[str, np.ndarray]) -> xr.Dataset:
    """Return the draws of a posterior that a model uses for a forecast, as a dataset.

    Args:
        model: the model.
        post: the posterior.
        draws: draws `(chain · draw, …)` of the model's random leaves, by path.

    Returns:
        The group `posterior`. If the model has other groups of a population, the dataset holds
        `draws` instead, with these groups.
    """
    held = post["posterior"].to_dataset()
    if not differ(paths(model), held):
        return held
    shape = held.sizes["chain"], held.sizes["draw"]
    by_path = {path: v.reshape(*shape, *v.shape[1:]) for path, v in draws.items()}
    return draws_dataset(model, by_path)


def known_bounds(model: Model) -> str:
    """Return the bounds that the user gave to priors, as JSON for an attribute.

    Returns:
        A JSON dict with `lower` and `upper`, by the name of a random leaf in results.
    """
    short = names(model)
    found = {short[path]: chosen_bounds(leaf.distribution) for path, leaf in paths(model).items()}
    return json.dumps({name: sides for name, sides in found.items() if sides})


def shortest_lengths(model: Model) -> str:
    """Return the shortest length scale and the size of each Gaussian process, as JSON.

    Returns:
        A JSON dict of pairs, by the name of the length scale in results. The shortest length is the
        shortest that the process can represent, and the size is the number of its functions.
    """
    short = names(model)
    found = {}
    # A shared length scale stands in several places.
    standing = {place: short[path] for path, leaf in paths(model).items() for place in leaf.places}
    for path, process in parts_inside(model, lambda node: hasattr(node, "shortest_length")):
        if (name := standing.get(f"{path}.length")) is not None:
            found[name] = process.shortest_length, process.size
    return json.dumps(found)


def with_coordinates(dataset: xr.Dataset) -> xr.Dataset:
    """Number chains and draws by coordinates, as ArviZ expects.

    Returns:
        The dataset with these coordinates.
    """
    dims = [dim for dim in ("chain", "draw") if dim in dataset.sizes]
    return dataset.assign_coords({dim: np.arange(dataset.sizes[dim]) for dim in dims})


def series_dataset(
    values: Mapping[str, np.ndarray],
    times: xr.DataArray,
    data: xr.Dataset,
    places: Mapping[str, xr.DataArray] | None = None,
) -> xr.Dataset:
    """Return draws of observables as a dataset, with the attributes of the data.

    Args:
        values: draws `(chain, draw, time, …)` by observable.
        times: the coordinate of the index.
        data: data with these observables, whose dimensions and attributes are used. An observable
            without places may be absent.
        places: the coordinates of all dimensions beyond the index, by name.

    Returns:
        The dataset.
    """
    coords = {
        str(c.name): c.assign_attrs(plain_attributes(c.attrs))
        for c in (times, *(places or {}).values())
    }
    variables = {}
    for name, draws in values.items():
        attributes = plain_attributes(data[name].attrs) if name in data else {}
        beyond = data[name].dims[1:] if draws.ndim > 3 else ()
        variables[name] = (("chain", "draw", times.name, *beyond), draws, attributes)
    return with_coordinates(xr.Dataset(variables, coords=coords))


def over_data(
    values: Mapping[str, np.ndarray],
    post: Mapping,
    data: xr.Dataset,
    at: xr.Dataset | None = None,
    chains: int | None = None,
) -> xr.Dataset:
    """Return draws of observables as a dataset, over the data of a fit or at other times.

    Args:
        values: draws `(chain · draw, time, …)` by observable.
        post: has the group `posterior`.
        data: the data of the fit, with their dimensions in the model's order.
        at: a dataset with the times; also with the places if they differ from those of the data.
        chains: the number of chains; by default that of the posterior.

    Returns:
        The dataset. It may have several draws for each draw of the posterior.
    """
    chains = chains or post["posterior"].sizes["chain"]
    at = data if at is None else at
    index = index_of(data)
    every = [str(dim) for name in values if name in data for dim in data[name].dims]
    dims = dict.fromkeys(dim for dim in every if dim != index)
    places = {dim: at[dim] if dim in at.coords else data[dim] for dim in dims}
    parted = {}
    for name, v in values.items():
        parted[name] = v.reshape(chains, len(v) // chains, *v.shape[1:])
    return series_dataset(parted, at[index], data, places)


def in_chains(draws: xr.Dataset, shape: tuple[int, int]) -> xr.Dataset:
    """Split the first dimension `draw` of all variables into chains.

    Args:
        draws: a dataset over `draw`, all chains one after the other.
        shape: the numbers of chains and of draws in each.

    Returns:
        The dataset over `chain` and `draw`.
    """
    parted = {}
    for name, variable in draws.items():
        values = variable.values.reshape(*shape, *variable.shape[1:])
        parted[name] = ("chain", *variable.dims), values, variable.attrs
    return with_coordinates(xr.Dataset(parted, coords=draws.coords, attrs=draws.attrs))


def by_chain(draws: xr.Dataset, post: Mapping) -> xr.Dataset:
    """Split the first dimension `draw` into the chains of a posterior, as `in_chains` does.

    Returns:
        The dataset over `chain` and `draw`.
    """
    sizes = post["posterior"].sizes
    return in_chains(draws, (sizes["chain"], sizes["draw"]))


def constraint_residual_group(
    constraint_residual: Mapping[str, np.ndarray], post: Mapping
) -> dict[str, xr.Dataset]:
    """Return the group `constraint_residual`: the root mean square of each residual by draw.

    Args:
        constraint_residual: the root mean squares `(draw,)`, by constraint.
        post: has the group `posterior`.

    Returns:
        A dict with the group by its name; empty without constraints.
    """
    variables = {name: ("draw", values) for name, values in constraint_residual.items()}
    return {"constraint_residual": by_chain(xr.Dataset(variables), post)} if variables else {}


def end_group(end: Mapping[str, np.ndarray], post: Mapping, time: float) -> dict[str, xr.Dataset]:
    """Return the group `end`: the states of each draw at the last time of the data.

    Args:
        end: these states, `(draw, …)` by name.
        post: has the group `posterior`.
        time: the last time, in the numbers of the layer.

    Returns:
        A dict with the group by its name; empty for a layer that cannot continue from the end.
    """
    variables = {}
    for name, values in end.items():
        dims = [f"{name}_dim_{i}" for i in range(values.ndim - 1)]
        variables[name] = ("draw", *dims), values
    group = xr.Dataset(variables, attrs={"time": time})
    return {"end": by_chain(group, post)} if variables else {}


def with_log_factor(stats: xr.Dataset, log_factor: np.ndarray) -> xr.Dataset:
    """Add `log_factor`, the log density of the constraints in each draw, to sampling statistics.

    Args:
        stats: sampling statistics over chain and draw.
        log_factor: the log density, `(chain · draw,)`, or 0 without constraints.

    Returns:
        The statistics; unchanged without constraints.
    """
    if not np.any(log_factor):
        return stats
    shape = stats.sizes["chain"], stats.sizes["draw"]
    return stats.assign(log_factor=(("chain", "draw"), log_factor.reshape(shape)))


def plain_attributes(attributes: Mapping) -> dict[str, str | int | float]:
    """Return attributes that netCDF can hold: values other than text and numbers become text.

    Returns:
        The attributes by name.
    """
    kept = {}
    for name, value in attributes.items():
        plain = isinstance(value, (str, int, float)) and not isinstance(value, bool)
        kept[str(name)] = value if plain else str(value)
    return kept


def where_seen(values: xr.Dataset, data: xr.Dataset) -> xr.Dataset:
    """Drop the values of variables where the data of the same name are missing (NaN).

    Args:
        values: variables over chain, draw and the dimensions of the data.
        data: the data.

    Returns:
        A dataset. A variable without missing data keeps its dimensions. Any other runs along
        `<name>_datum`, with coordinates such as `<name>_time` for each datum.
    """
    # Without gaps nothing needs to be copied.
    if not any(bool(data[name].isnull().any()) for name in values.data_vars):
        return values
    kept = {str(name): _at_seen_data(v, data[name]) for name, v in values.data_vars.items()}
    return xr.Dataset(kept, attrs=values.attrs)


def _at_seen_data(variable: xr.DataArray, data: xr.DataArray) -> xr.DataArray:
    """Return a variable along the data that are not missing, as `where_seen` describes it."""
    there = data.notnull().values
    if there.all():
        return variable
    along = f"{data.name}_{DATUM}"
    pairs = zip(data.dims, np.nonzero(there), strict=True)
    at = {dim: xr.DataArray(index, dims=along) for dim, index in pairs}
    # Further coordinates may lie along dimensions of other observables, too.
    plain = variable.drop_vars([name for name in variable.coords if name not in variable.dims])
    picked = plain.isel(at).transpose("chain", "draw", ..., missing_dims="ignore")
    own = [dim for dim in data.dims if dim in picked.coords]
    picked = picked.rename({dim: f"{data.name}_{dim}" for dim in own})
    return picked.assign_coords({along: np.arange(int(there.sum()))})


def is_random_effect(leaf: RandomLeaf) -> bool:
    """Return whether a leaf has a number for each group and a prior with shared hyperparameters.

    Returns:
        False if each group has an independent prior.
    """
    return bool(leaf.dims) and isinstance(leaf.distribution, Dependent)


def prior_predictive(
    pushed: Any, draws: int, prior: xr.Dataset, observed: xr.Dataset, rows: OwnRows | None
) -> dict[str, xr.Dataset]:
    """Return the group `prior_predictive`: data simulated from prior draws.

    Args:
        pushed: predictions of all draws; the prior draws come first.
        draws: the number of prior draws.
        prior: the prior draws as a dataset.
        observed: the data of the fit.
        rows: the rows at which each group of a population was observed; None without a population.

    Returns:
        A dict with the group by its name. It has as many draws as fit into two million numbers, but
        at least 50. Draws whose solve failed, or whose data are not finite, are left out. The
        coordinate `draw` numbers the prior draws that are kept. The dict is empty if none is.
    """
    # Keep as many draws with finite data as the limit allows.
    flat = [values[:draws].reshape(draws, -1) for values in pushed.predictions.values()]
    room = max(_FEWEST, _MOST // max(sum(values.shape[1] for values in flat), 1))
    finite = np.all([np.isfinite(values).all(axis=1) for values in flat], axis=0)
    taken = np.flatnonzero(finite)[:room]
    if not taken.size:
        return {}
    found = _at_data(pushed.predictions, taken, {"posterior": prior}, observed, rows)
    return {"prior_predictive": found.assign_coords(draw=taken)}


def said_of_data(
    pushed: Any,
    taken: slice | np.ndarray,
    post: Mapping[str, xr.Dataset] | xr.DataTree,
    observed: xr.Dataset,
    rows: OwnRows | None = None,
) -> dict[str, xr.Dataset]:
    """Return the groups `log_likelihood`, `posterior_predictive` and `conditional_mean`.

    Args:
        pushed: predictions of all draws.
        taken: the indices of the posterior draws among them.
        post: has the group `posterior`.
        observed: all data, with their dimensions in the model's order.
        rows: the rows at which each group of a population was observed; None without a population.
            For a population `conditional_mean`, too, leaves out missing data.

    Returns:
        The three datasets by name.
    """
    given = taken, post, observed, rows
    log_likelihood = _at_data(pushed.log_likelihood, *given)
    if rows is None:
        # Conditional means are kept at missing data, too.
        mean = over_data({name: v[taken] for name, v in pushed.mean.items()}, post, observed)
    else:
        mean = _at_data(pushed.mean, *given)
    return {
        "log_likelihood": _with_joint(log_likelihood, index_of(observed)),
        "posterior_predictive": _at_data(pushed.predictions, *given),
        "conditional_mean": mean,
    }


def _at_data(
    values: Mapping[str, np.ndarray],
    taken: slice | np.ndarray,
    post: Mapping[str, xr.Dataset] | xr.DataTree,
    observed: xr.Dataset,
    rows: OwnRows | None,
) -> xr.Dataset:
    """Return some draws of each observable at the data that are not missing.

    Args:
        values: draws of all kinds, `(draw, …)` by observable.
        taken: the indices of the draws to return.
        post: has the group `posterior`.
        observed: the data.
        rows: the rows at which each group of a population was observed; None without a population.
    """
    if rows is None:
        taken_draws = {name: v[taken] for name, v in values.items()}
        return where_seen(over_data(taken_draws, post, observed), observed)
    # Draws of a population, `(draw, row, …, group)`, are given at the rows of each group.
    chains = post["posterior"].sizes["chain"]
    found, coords = {}, {}
    for name, every in values.items():
        time, *others = np.nonzero(observed[name].notnull().values)
        at = (slice(None), rows.places(time, others[-1]), *others)
        drawn = every[taken][at].reshape(chains, -1, len(time))
        seen = _at_seen_data(observed[name], observed[name])
        attributes = plain_attributes(observed[name].attrs)
        found[name] = (("chain", "draw", *seen.dims), drawn, attributes)
        coords |= seen.coords
    return with_coordinates(xr.Dataset(found, coords))


def _with_joint(likelihood: xr.Dataset, index: str) -> xr.Dataset:
    """Add the variable `joint` to the log likelihood of several observables, and hide their own.

    `joint` has the log likelihood of all data of all observables. ArviZ's `loo` and `compare` take
    the only variable of the group, and `psense` adds up all variables. The observables become
    coordinates, where functions that need one by its name, such as `loo_pit`, find it.
    """
    likelihood = likelihood.map(_jittered_variable, keep_attrs=True)
    variables = {str(name): v for name, v in likelihood.data_vars.items()}
    if len(variables) < 2:
        return likelihood
    # 1. All data in one array.
    flat = [v.values.reshape(*v.shape[:2], -1) for v in variables.values()]
    sizes = [values.shape[2] for values in flat]
    every = np.concatenate(flat, axis=2)
    # 2. The observables become views of this array, so that memory does not double.
    parts = np.split(every, np.cumsum(sizes)[:-1], axis=2)
    own = {}
    for (name, v), part in zip(variables.items(), parts, strict=True):
        own[name] = v.dims, part.reshape(v.shape), v.attrs
    # 3. Observable and index of each datum.
    where = [_index_of_data(v, index) for v in variables.values()]
    coords = {
        DATUM: np.arange(every.shape[2]),
        f"{DATUM}_observable": (DATUM, np.repeat(list(variables), sizes)),
        f"{DATUM}_{index}": (DATUM, np.concatenate(where)),
    }
    joint = {JOINT: (("chain", "draw", DATUM), every)}
    return likelihood.assign(own).set_coords(list(own)).assign(joint).assign_coords(coords)


def _index_of_data(variable: xr.DataArray, index: str) -> np.ndarray:
    """Return the index, such as the time, of each datum of a variable `(chain, draw, …)`."""
    one = variable.isel(chain=0, draw=0, drop=True)
    found = one[index if index in one.coords else f"{variable.name}_{index}"]
    return found.broadcast_like(one).transpose(*one.dims).values.ravel()


def _jittered_variable(values: xr.DataArray) -> xr.DataArray:
    """Apply `jittered_constants` to a variable `(chain, draw, …)`."""
    flat = values.values.reshape(-1, *values.shape[2:])
    return values.copy(data=jittered_constants(flat).reshape(values.shape))


def log_prior_group(
    model: Model, values: Mapping[str, Float[np.ndarray, "chain draw"]]
) -> xr.Dataset:
    """Return the group `log_prior` with the log prior density of each random leaf.

    The log densities of a leaf with several numbers are summed, as `psense` needs it. Densities are
    those of the constrained values, without log |det J|. Random effects become coordinates of the
    group, since `psense` must not scale them: their distribution is part of the model (Kallioinen
    et al. 2024). Variables and coordinates together give the joint prior density.

    Args:
        model: the model.
        values: the log prior density `(chain, draw)` of each random leaf, by path.

    Returns:
        The group, over chain and draw.
    """
    short = names(model)
    columns = {short[path]: (("chain", "draw"), values[path]) for path in short}
    effects = [short[path] for path, leaf in paths(model).items() if is_random_effect(leaf)]
    group = with_coordinates(xr.Dataset(columns)).set_coords(effects)
    priors = [values[path] for path in short if short[path] not in effects]
    total = sum(priors, np.zeros(())).ravel()
    if jittered_constants(total) is total:
        return group
    # All priors are flat: their sum is constant, which PSIS cannot fit.
    first = next(iter(group.data_vars))
    return group.assign({first: _jittered_variable(group[first])})
