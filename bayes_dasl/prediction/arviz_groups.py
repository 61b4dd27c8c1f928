"""What draws say of the data that are there, laid out as the functions of ArviZ read it."""

from collections.abc import Mapping

import numpy as np
import xarray as xr
from jaxtyping import Float

from .._statistics.importance import told_apart
from ..data.datasets import DATUM, JOINT, index_of
from ..data.layer_inputs import OwnRows
from ..model import Model
from ..random import Dependent, RandomLeaf, paths
from .posterior import names, over_data, plain_attributes, with_coordinates
from .predictive import Pushed

_FEWEST, _MOST = 50, 2 * 10**6  # draws and numbers of `prior_predictive`


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
    pushed: Pushed, draws: int, prior: xr.Dataset, observed: xr.Dataset, rows: OwnRows | None
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
    pushed: Pushed,
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
    return values.copy(data=told_apart(flat).reshape(values.shape))


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
    if told_apart(total) is total:
        return group
    first = next(iter(group.data_vars))  # all priors are flat
    return group.assign({first: _told_apart(group[first])})
