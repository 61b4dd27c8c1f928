"""What draws say of the data that are there, laid out as the functions of ArviZ read it."""

from collections.abc import Mapping

import numpy as np
import xarray as xr
from jaxtyping import Float

from .._statistics.importance import told_apart
from ..data.datasets import DATUM, JOINT, index_of
from ..data.layer_inputs import OwnRows
from ..model import Model
from .posterior import names, over_data, plain_attributes, with_coordinates
from .predictive import Pushed


def where_seen(values: xr.Dataset, data: xr.Dataset) -> xr.Dataset:
    """Variables without what is missing (NaN) in the data of the same name.

    One of which nothing is missing keeps its dimensions; another one runs along `<name>_datum`, and has coordinates
    that say which datum is which, such as `<name>_time`.
    """
    if not any(bool(data[name].isnull().any()) for name in values.data_vars):
        return values
    return xr.Dataset({str(n): _seen(v, data[n]) for n, v in values.data_vars.items()}, attrs=values.attrs)


def _seen(variable: xr.DataArray, data: xr.DataArray) -> xr.DataArray:
    there = data.notnull().values
    if there.all():
        return variable
    along = f"{data.name}_{DATUM}"
    at = {dim: xr.DataArray(index, dims=along) for dim, index in zip(data.dims, np.nonzero(there), strict=True)}
    # Those beside the dimensions may lie along those of other observables too.
    plain = variable.drop_vars([name for name in variable.coords if name not in variable.dims])
    picked = plain.isel(at).transpose("chain", "draw", ..., missing_dims="ignore")
    picked = picked.rename({dim: f"{data.name}_{dim}" for dim in data.dims if dim in picked.coords})
    return picked.assign_coords({along: np.arange(int(there.sum()))})


def said_of_data(
    pushed: Pushed,
    taken: slice | np.ndarray,
    post: Mapping[str, xr.Dataset] | xr.DataTree,
    observed: xr.Dataset,
    rows: OwnRows | None = None,
) -> dict[str, xr.Dataset]:
    """The groups `log_likelihood`, `posterior_predictive` and `conditional_mean` of some of the pushed draws.

    `observed` are all data, with their dimensions in the model's order; `post` has the group `posterior`. Draws at the
    own `rows` of each member of a population run along the data that are there.
    """
    if rows is not None:
        said = (pushed.log_likelihood, pushed.predictions, pushed.mean)
        likelihood, *others = (_over_own(values, taken, rows, post, observed) for values in said)
        groups = (_joined(likelihood, index_of(observed)), *others)
        return dict(zip(("log_likelihood", "posterior_predictive", "conditional_mean"), groups, strict=True))

    def over(values: Mapping[str, np.ndarray]) -> xr.Dataset:
        return over_data({name: v[taken] for name, v in values.items()}, post, observed)

    return {
        "log_likelihood": _joined(where_seen(over(pushed.log_likelihood), observed), index_of(observed)),
        "posterior_predictive": where_seen(over(pushed.predictions), observed),
        "conditional_mean": over(pushed.mean),
    }


def _over_own(
    values: Mapping[str, np.ndarray],
    taken: slice | np.ndarray,
    rows: OwnRows,
    post: Mapping[str, xr.Dataset] | xr.DataTree,
    observed: xr.Dataset,
) -> xr.Dataset:
    """Draws `(draw, row, …, member)` along the data of each observable, as `where_seen` has these."""
    chains, found, coords = post["posterior"].sizes["chain"], {}, {}
    for name, every in values.items():
        time, *others = np.nonzero(observed[name].notnull().values)
        at = (rows.places(time, others[-1]), *others)
        drawn = every[taken][(slice(None), *at)]
        (along,) = _seen(observed[name], observed[name]).dims
        found[name] = (
            ("chain", "draw", along), drawn.reshape(chains, -1, len(time)), plain_attributes(observed[name].attrs)
        )  # fmt: skip
        coords |= _seen(observed[name], observed[name]).coords
    return with_coordinates(xr.Dataset(found, coords))


def _joined(likelihood: xr.Dataset, index: str) -> xr.Dataset:
    """The log likelihood of each datum; of several observables as one variable, `joint`.

    ArviZ's `loo` and `compare` take the one variable that there is, and `psense` adds all of them up. What looks
    an observable up by its name, as `loo_pit` does, finds it among the coordinates.
    """
    likelihood = likelihood.map(_told_apart, keep_attrs=True)
    each = {str(name): v.values.reshape(*v.shape[:2], -1) for name, v in likelihood.data_vars.items()}
    if len(each) < 2:
        return likelihood
    every = np.concatenate(list(each.values()), axis=2)
    ends = np.cumsum([v.shape[2] for v in each.values()])[:-1]
    # Views of the one array: nothing is held twice.
    parts = dict(zip(each, np.split(every, ends, axis=2), strict=True))
    own = {n: (v.dims, parts[str(n)].reshape(v.shape), v.attrs) for n, v in likelihood.data_vars.items()}
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


def log_prior_group(model: Model, values: Mapping[str, Float[np.ndarray, "chain draw"]]) -> xr.Dataset:
    """The group `log_prior`: the log prior density of each random leaf, by its name in results.

    Of a leaf of several numbers it is the sum, as `psense` takes it. It is that of the values themselves: no volume of
    the way to the unconstrained space.
    """
    columns = {short: (("chain", "draw"), values[path]) for path, short in names(model).items()}
    group = with_coordinates(xr.Dataset(columns))
    total = sum(values.values(), np.zeros(())).ravel()
    if told_apart(total) is total:
        return group
    first = next(iter(group.data_vars))  # all priors are flat
    return group.assign({first: _told_apart(group[first])})
