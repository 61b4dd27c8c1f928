"""Draws as an xarray.DataTree: the groups of posteriors and forecasts, as ArviZ reads them."""

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

_FEWEST, _MOST = 50, 2 * 10**6  # draws and numbers of `prior_predictive`


def names(model: Model) -> dict[str, str]:
    """The name in results of every random leaf, by its path: the shortest suffix that is
    unambiguous.
    """
    leaves = paths(model)
    least = {path: leaf.own for path, leaf in leaves.items()}
    return short_names(leaves, (*model.observables, model.index, "chain", "draw"), least)


def draws_dataset(model: Model, draws: Mapping[str, np.ndarray]) -> xr.Dataset:
    """A dataset of draws, path → `(chain, draw, …)`, with units,
    group and prior of each variable.
    """
    short = names(model)
    variables, coordinates = {}, {}
    for path, leaf in paths(model).items():
        values = np.asarray(draws[path])
        own = [
            *leaf.dims,
            *(f"{short[path]}_dim_{i}" for i in range(len(leaf.dims), values.ndim - 2)),
        ]
        variables[short[path]] = (("chain", "draw", *own), values, _attributes(leaf))
        coordinates |= {dim: np.asarray(members) for dim, members in leaf.dims.items()}
    return with_coordinates(xr.Dataset(variables, coordinates))


def pushed_draws(model: Model, post: xr.DataTree, draws: Mapping[str, np.ndarray]) -> xr.Dataset:
    """The draws of a posterior as a dataset, where the model is of other members those that they
    have there.
    """
    held = post["posterior"].to_dataset()
    if not differ(paths(model), held):
        return held
    shape = held.sizes["chain"], held.sizes["draw"]
    return draws_dataset(
        model, {path: values.reshape(*shape, *values.shape[1:]) for path, values in draws.items()}
    )


def _attributes(leaf: RandomLeaf) -> dict[str, str | int | float]:
    """What results say of a random leaf: its prior and bounds, and whether it is `pooled`.

    Members of a population are pooled where they are drawn given numbers that are unknown
    themselves.
    """
    prior = describe_distribution(leaf.distribution)
    pooled = bool(leaf.dims) and isinstance(leaf.distribution, Dependent)
    said: dict[str, str | int | float] = {
        "path": leaf.path,
        "group": leaf.group,
        "units": leaf.units,
        "prior": prior,
    }
    return said | {"pooled": int(pooled)} | bounds(leaf.distribution.support)


def known_bounds(model: Model) -> str:
    """The bounds that priors were given, by the name of a random leaf in results: as text, for an
    attribute.
    """
    short = names(model)
    found = {short[path]: chosen_bounds(leaf.distribution) for path, leaf in paths(model).items()}
    return json.dumps({name: sides for name, sides in found.items() if sides})


def shortest_lengths(model: Model) -> str:
    """The shortest length that each Gaussian process can have, and its size, by the name of its
    length: as text.
    """
    short, found = names(model), {}
    standing = {place: short[path] for path, leaf in paths(model).items() for place in leaf.places}
    for path, process in parts_inside(model, lambda node: hasattr(node, "shortest_length")):
        if (name := standing.get(f"{path}.length")) is not None:
            found[name] = process.shortest_length, process.size
    return json.dumps(found)


def with_coordinates(dataset: xr.Dataset) -> xr.Dataset:
    """Whole-number coordinates for chain and draw, as ArviZ expects them."""
    return dataset.assign_coords(
        {d: np.arange(dataset.sizes[d]) for d in ("chain", "draw") if d in dataset.sizes}
    )


def series_dataset(
    values: Mapping[str, np.ndarray],
    times: xr.DataArray,
    data: xr.Dataset,
    places: Mapping[str, xr.DataArray] | None = None,
) -> xr.Dataset:
    """Draws `(chain, draw, time, …)` of observables as a dataset, with the units of the data.

    `places` are the coordinates of the dimensions beyond the index, in their order, of the
    observables in `data`.
    """
    attributes = {
        name: plain_attributes(data[name].attrs) if name in data else {} for name in values
    }
    coords = {
        str(c.name): c.assign_attrs(plain_attributes(c.attrs))
        for c in (times, *(places or {}).values())
    }
    variables = {
        name: (("chain", "draw", times.name, *_beyond(data, name, v.ndim - 3)), v, attributes[name])
        for name, v in values.items()
    }
    return with_coordinates(xr.Dataset(variables, coords=coords))


def _beyond(data: xr.Dataset, name: str, number: int) -> tuple[str, ...]:
    """The dimensions of an observable after the index."""
    return tuple(map(str, data[name].dims[1:])) if number else ()


def over_data(
    values: Mapping[str, np.ndarray],
    post: Mapping,
    data: xr.Dataset,
    at: xr.Dataset | None = None,
    chains: int | None = None,
) -> xr.Dataset:
    """Draws `(chain · draw, time, …)` of observables, in the chains of a posterior, over its data
    or at other times.

    `data` are those of the fit, with their dimensions in the model's order; `at` has the times, and
    may have places. There are as many `chains` as in the posterior unless given.
    """
    chains = (
        chains or post["posterior"].sizes["chain"]
    )  # of draws there may be several for each of the posterior's
    at = data if at is None else at
    index = index_of(data)
    names = dict.fromkeys(str(d) for n in values if n in data for d in data[n].dims if d != index)
    places = {name: at[name] if name in at.coords else data[name] for name in names}
    parted = {name: v.reshape(chains, len(v) // chains, *v.shape[1:]) for name, v in values.items()}
    return series_dataset(parted, at[index], data, places)


def by_chain(draws: xr.Dataset, post: Mapping) -> xr.Dataset:
    """A dataset over `draw`, all chains one after the other, as one over `chain` and `draw`."""
    shape = tuple(post["posterior"].sizes[d] for d in ("chain", "draw"))
    parted = {
        name: (("chain", *v.dims), v.values.reshape(*shape, *v.shape[1:]), v.attrs)
        for name, v in draws.items()
    }
    return with_coordinates(xr.Dataset(parted, coords=draws.coords))


def mismatch_group(mismatch: Mapping[str, np.ndarray], post: Mapping) -> dict[str, xr.Dataset]:
    """The group `mismatch`: by how much each draw breaks each constraint; none where nothing is
    constrained.
    """
    shape = tuple(post["posterior"].sizes[d] for d in ("chain", "draw"))
    variables = {name: (("chain", "draw"), v.reshape(shape)) for name, v in mismatch.items()}
    return {"mismatch": with_coordinates(xr.Dataset(variables))} if variables else {}


def end_group(end: Mapping[str, np.ndarray], post: Mapping, time: float) -> dict[str, xr.Dataset]:
    """The group `end`: the states of each draw at the last time of the data; none for a layer that
    cannot go on.

    Args:
        end: these states, `(draw, …)` by name.
        post: has the group `posterior`.
        time: that time, in the numbers of the layer.
    """
    shape = tuple(post["posterior"].sizes[d] for d in ("chain", "draw"))
    variables = {
        name: (
            ("chain", "draw", *(f"{name}_dim_{i}" for i in range(v.ndim - 1))),
            v.reshape(*shape, *v.shape[1:]),
        )
        for name, v in end.items()
    }
    return (
        {"end": with_coordinates(xr.Dataset(variables, attrs={"time": time}))} if variables else {}
    )


def with_log_factor(stats: xr.Dataset, log_factor: np.ndarray) -> xr.Dataset:
    """Sample statistics with what the constraints add to the log density of each draw, where there
    are any.
    """
    shape = tuple(stats.sizes[d] for d in ("chain", "draw"))
    return (
        stats.assign(log_factor=(("chain", "draw"), log_factor.reshape(shape)))
        if np.any(log_factor)
        else stats
    )


def plain_attributes(attributes: Mapping) -> dict[str, str | int | float]:
    """Attributes that netCDF can hold: anything but text and numbers becomes text."""
    kept = {}
    for name, value in attributes.items():
        plain = isinstance(value, (str, int, float)) and not isinstance(value, bool)
        kept[str(name)] = value if plain else str(value)
    return kept


def where_seen(values: xr.Dataset, data: xr.Dataset) -> xr.Dataset:
    """Variables without what is missing (NaN) in the data of the same name.

    One of which nothing is missing keeps its dimensions; another one runs along `<name>_datum`, and
    has coordinates that say which datum is which, such as `<name>_time`.
    """
    if not any(bool(data[name].isnull().any()) for name in values.data_vars):
        return values
    return xr.Dataset(
        {str(n): _seen(v, data[n]) for n, v in values.data_vars.items()}, attrs=values.attrs
    )


def _seen(variable: xr.DataArray, data: xr.DataArray) -> xr.DataArray:
    there = data.notnull().values
    if there.all():
        return variable
    along = f"{data.name}_{DATUM}"
    at = {
        dim: xr.DataArray(index, dims=along)
        for dim, index in zip(data.dims, np.nonzero(there), strict=True)
    }
    # Those beside the dimensions may lie along those of other observables too.
    plain = variable.drop_vars([name for name in variable.coords if name not in variable.dims])
    picked = plain.isel(at).transpose("chain", "draw", ..., missing_dims="ignore")
    picked = picked.rename({dim: f"{data.name}_{dim}" for dim in data.dims if dim in picked.coords})
    return picked.assign_coords({along: np.arange(int(there.sum()))})


def is_random_effect(leaf: RandomLeaf) -> bool:
    """Whether a leaf has a number for each member, or group of members,
    drawn from what they share.
    """
    return bool(leaf.dims) and isinstance(leaf.distribution, Dependent)


def prior_predictive(
    pushed: Any, draws: int, prior: xr.Dataset, observed: xr.Dataset, rows: OwnRows | None
) -> dict[str, xr.Dataset]:
    """The group `prior_predictive`: data drawn from the first of the pushed draws, those of the
    prior.

    Draws whose solve failed, or whose data are not finite, are left out, and of many data those
    that would take more room than `_MOST` numbers. The coordinate `draw` says which of the prior
    they are. None where none are left.
    """
    flat = [values[:draws].reshape(draws, -1) for values in pushed.predictions.values()]
    room = max(_FEWEST, _MOST // max(sum(values.shape[1] for values in flat), 1))
    taken = np.flatnonzero(np.all([np.isfinite(values).all(axis=1) for values in flat], axis=0))[
        :room
    ]
    if not taken.size:
        return {}
    found = _predicted(pushed.predictions, taken, {"posterior": prior}, observed, rows)
    return {"prior_predictive": found.assign_coords(draw=taken)}


def said_of_data(
    pushed: Any,
    taken: slice | np.ndarray,
    post: Mapping[str, xr.Dataset] | xr.DataTree,
    observed: xr.Dataset,
    rows: OwnRows | None = None,
) -> dict[str, xr.Dataset]:
    """The groups `log_likelihood`, `posterior_predictive` and `conditional_mean` of some of the
    pushed draws.

    `observed` are all data, with their dimensions in the model's order; `post` has the group
    `posterior`. Draws at the own `rows` of each member of a population run along the data that are
    there.
    """
    given = taken, post, observed, rows
    if rows is None:
        mean = over_data({name: v[taken] for name, v in pushed.mean.items()}, post, observed)
    else:
        mean = _predicted(pushed.mean, *given)
    return {
        "log_likelihood": _joined(_predicted(pushed.log_likelihood, *given), index_of(observed)),
        "posterior_predictive": _predicted(pushed.predictions, *given),
        "conditional_mean": mean,
    }


def _predicted(
    values: Mapping[str, np.ndarray],
    taken: slice | np.ndarray,
    post: Mapping[str, xr.Dataset] | xr.DataTree,
    observed: xr.Dataset,
    rows: OwnRows | None,
) -> xr.Dataset:
    """Some draws of each datum that is there."""
    if rows is not None:
        return _over_own(values, taken, rows, post, observed)
    return where_seen(
        over_data({name: v[taken] for name, v in values.items()}, post, observed), observed
    )


def _over_own(
    values: Mapping[str, np.ndarray],
    taken: slice | np.ndarray,
    rows: OwnRows,
    post: Mapping[str, xr.Dataset] | xr.DataTree,
    observed: xr.Dataset,
) -> xr.Dataset:
    """Draws `(draw, row, …, member)` along the data of each observable,
    as `where_seen` has these.
    """
    chains, found, coords = post["posterior"].sizes["chain"], {}, {}
    for name, every in values.items():
        time, *others = np.nonzero(observed[name].notnull().values)
        at = (rows.places(time, others[-1]), *others)
        drawn = every[taken][(slice(None), *at)]
        (along,) = _seen(observed[name], observed[name]).dims
        found[name] = (
            ("chain", "draw", along),
            drawn.reshape(chains, -1, len(time)),
            plain_attributes(observed[name].attrs),
        )
        coords |= _seen(observed[name], observed[name]).coords
    return with_coordinates(xr.Dataset(found, coords))


def _joined(likelihood: xr.Dataset, index: str) -> xr.Dataset:
    """The log likelihood of each datum; of several observables as one variable, `joint`.

    ArviZ's `loo` and `compare` take the one variable that there is, and `psense` adds all of them
    up. What looks an observable up by its name, as `loo_pit` does, finds it among the coordinates.
    """
    likelihood = likelihood.map(_told_apart, keep_attrs=True)
    each = {
        str(name): v.values.reshape(*v.shape[:2], -1) for name, v in likelihood.data_vars.items()
    }
    if len(each) < 2:
        return likelihood
    every = np.concatenate(list(each.values()), axis=2)
    ends = np.cumsum([v.shape[2] for v in each.values()])[:-1]
    # Views of the one array: nothing is held twice.
    parts = dict(zip(each, np.split(every, ends, axis=2), strict=True))
    own = {
        n: (v.dims, parts[str(n)].reshape(v.shape), v.attrs)
        for n, v in likelihood.data_vars.items()
    }
    where = [_places(v, index) for v in likelihood.data_vars.values()]
    coords = {
        DATUM: np.arange(every.shape[2]),
        f"{DATUM}_observable": (DATUM, np.repeat(list(each), [v.shape[2] for v in each.values()])),
        f"{DATUM}_{index}": (DATUM, np.concatenate(where)),
    }
    joint = {JOINT: (("chain", "draw", DATUM), every)}
    return likelihood.assign(own).set_coords(list(own)).assign(joint).assign_coords(coords)


def _places(variable: xr.DataArray, index: str) -> np.ndarray:
    """Where along the index each datum of a variable `(chain, draw, …)` lies."""
    one = variable.isel(chain=0, draw=0, drop=True)
    found = one[index if index in one.coords else f"{variable.name}_{index}"]
    return found.broadcast_like(one).transpose(*one.dims).values.ravel()


def _told_apart(values: xr.DataArray) -> xr.DataArray:
    flat = values.values.reshape(-1, *values.shape[2:])
    return values.copy(data=jittered_constants(flat).reshape(values.shape))


def log_prior_group(
    model: Model, values: Mapping[str, Float[np.ndarray, "chain draw"]]
) -> xr.Dataset:
    """The group `log_prior`: the log prior density of each random leaf, by its name in results.

    Of a leaf of several numbers it is the sum, as `psense` takes it. It is that of the values
    themselves: no volume of the way to the unconstrained space.

    Random effects, whose distribution depends on other leaves, are part of the model rather than
    priors, and `psense` must not scale them (Kallioinen et al. 2024): they are coordinates of the
    group. Variables and coordinates together are the joint prior density.
    """
    short = names(model)
    columns = {short[path]: (("chain", "draw"), values[path]) for path in short}
    effects = [short[path] for path, leaf in paths(model).items() if is_random_effect(leaf)]
    group = with_coordinates(xr.Dataset(columns)).set_coords(effects)
    total = sum(
        (values[path] for path in short if short[path] not in effects), np.zeros(())
    ).ravel()
    if jittered_constants(total) is total:
        return group
    first = next(iter(group.data_vars))  # all priors are flat
    return group.assign({first: _told_apart(group[first])})
