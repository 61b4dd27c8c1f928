"""Read draws, fitted data and the signature of the model from a posterior."""

import dataclasses
import json

import numpy as np
import xarray as xr

from .._findings import PARTICLES
from ..data.censoring import CODE, LIMIT
from ..data.datasets import in_units, units_of
from ..data.dates import counted_in, refuse_mixed
from ..errors import MismatchError, ModelError
from ..model import Model
from ..random import paths
from .new_members import of_members

COUNTS_IN = "counts_dates_in"


def ends_of(post: xr.DataTree) -> tuple[float, dict[str, np.ndarray]] | None:
    """Return the last time of the fitted data, and the states at that time.

    Returns:
        The time, and states `(draw, …)` by name; None if the posterior does not store them.
    """
    if "end" not in post.children:
        return None
    held = post["end"].to_dataset()
    states = {}
    for name, variable in held.data_vars.items():
        values = variable.transpose("chain", "draw", ...).values
        states[str(name)] = values.reshape(-1, *values.shape[2:])
    return float(held.attrs["time"]), states


def are_chains(post: xr.DataTree) -> bool:
    """Return whether the draws are Markov chains, not an ensemble, dropout masks or a point.

    Returns:
        True for chains.
    """
    return bool(post.attrs.get("markov", 1))


def of_particles(post: xr.DataTree) -> bool:
    """Return whether the draws are particles of independent runs, stored along `chain`.

    Returns:
        True for particles.
    """
    return post.attrs.get("draws_are") == PARTICLES


def draws_of(model: Model, post: xr.DataTree, group: str = "posterior") -> dict[str, np.ndarray]:
    """Return draws of every random leaf, for the groups that the model has.

    Args:
        model: the model.
        post: the posterior.
        group: the group with the draws, "posterior" or "prior".

    Returns:
        Draws `(chain · draw, …)` by path.

    Raises:
        MismatchError: if the posterior belongs to another model.
    """
    check_belongs(model, post)
    by_path = {v.attrs["path"]: v for v in post[group].to_dataset().data_vars.values()}
    draws: dict[str, np.ndarray] = {}
    # In the order of `paths`, hyperparameters come before the leaves that depend on them.
    for path, leaf in paths(model).items():
        held = by_path[path]
        if leaf.dims:
            draws[path] = of_members(leaf, held, draws)
        else:
            draws[path] = held.values.reshape(-1, *held.shape[2:])
    return draws


def signature(model: Model) -> str:
    """Return the signature of a model: its observables, and its random leaves.

    A random leaf counts with its path, its shape without groups, and its owners. Owners are the
    classes of the objects that contain the leaf.

    Returns:
        JSON text, equal for a model and its posteriors.
    """
    fields = {field.name for field in dataclasses.fields(model)}
    leaves = {}
    for path, leaf in paths(model).items():
        # A shared leaf has its name as path, and may stand anywhere.
        owners = leaf.owners if path.partition(".")[0] in fields else "shared"
        leaves[path] = [list(leaf.shape[len(leaf.dims) :]), owners]
    return json.dumps({"leaves": leaves, "observables": sorted(model.observables)}, sort_keys=True)


def check_belongs(model: Model, post: xr.DataTree) -> None:
    """Refuse a posterior of a model with another signature.

    Raises:
        MismatchError: naming the random leaves that differ, or for anything but a posterior.
        ModelError: if `model` is no `bd.Model`.
    """
    if not isinstance(model, Model):
        raise ModelError(f"model must be a bd.Model, not {type(model).__name__}")
    for group in ("posterior", "observed_data", "constant_data"):
        if not isinstance(post, xr.DataTree) or group not in post.children:
            raise MismatchError(
                f"this is no posterior: it has no group '{group}'; give the result of bd.fit"
            )
    theirs = json.loads(post.attrs.get("signature", "{}"))
    ours = json.loads(signature(model))
    if theirs == ours:
        return
    a = theirs.get("leaves", {})
    b = ours["leaves"]
    # Name everything that differs.
    parts = []
    if a.keys() - b.keys():
        parts.append(f"only the posterior has {', '.join(sorted(a.keys() - b.keys()))}")
    if b.keys() - a.keys():
        parts.append(f"only the model has {', '.join(sorted(b.keys() - a.keys()))}")
    for path in a:
        if path in b and a[path] != b[path]:
            parts.append(f"{path} is {a[path]} in the posterior and {b[path]} in the model")
    if theirs.get("observables") != ours["observables"]:
        parts.append(
            f"the posterior's observables are {theirs.get('observables')}, the model's "
            f"{ours['observables']}"
        )
    raise MismatchError(f"this posterior belongs to another model: {'; '.join(parts)}")


def fitted_observables(post: xr.DataTree) -> xr.Dataset:
    """Return the observables that a posterior was fitted to, over their whole index.

    Returns:
        A dataset, NaN where data are missing.
    """
    return post["fitted_data" if "fitted_data" in post.children else "observed_data"].to_dataset()


def known_inputs(post: xr.DataTree) -> xr.Dataset:
    """Return the forcings of a fit, and the variables that its noise reads for each datum.

    Returns:
        A dataset; empty for posteriors made by hand.
    """
    return post["constant_data"].to_dataset() if "constant_data" in post.children else xr.Dataset()


def with_what_is_censored(post: xr.DataTree) -> xr.Dataset:
    """Return the observables of a fit, with flags and limits of censoring as coordinates.

    Returns:
        The dataset.
    """
    observed = fitted_observables(post)
    known = known_inputs(post)
    beside = [f"{name}{part}" for name in observed.data_vars for part in (CODE, LIMIT)]
    return observed.assign_coords({name: known[name] for name in beside if name in known})


def in_units_of_fit(model: Model, post: xr.DataTree, data: xr.Dataset) -> xr.Dataset:
    """Convert new data to the units of the model, or else to the units of the fitted data.

    Returns:
        The data in these units.

    Raises:
        DataError: for units of another dimension, for other units of the index or a place, and if
            only one of fit and data has dates.
        MismatchError: if the model counts dates in another unit than the fitted one.
    """
    fitted = fitted_data(post)
    if model.index in fitted.coords:
        refuse_mixed(data, model.index, fitted[model.index], "the data of the fit")
    # Only a fit to dates has this attribute.
    counted = post["constant_data"].attrs.get(COUNTS_IN)
    if counted is not None and counted != (now := counted_in(model.reader.index_units)):
        raise MismatchError(
            f"the model counts dates in '{now}', that of the fit did in '{counted}'"
        )
    along = units_of(fitted.coords.to_dataset())
    variables = {name: unit for name, unit in units_of(fitted).items() if name not in along}
    return in_units(in_units(model.in_own_units(data), variables), along, doubtful=True)


def fitted_data(post: xr.DataTree) -> xr.Dataset:
    """Return observables and inputs that a posterior was fitted to, with their units.

    Returns:
        The dataset.
    """
    groups = [fitted_observables(post), post["constant_data"].to_dataset()]
    return xr.merge(groups, combine_attrs="drop_conflicts").drop_attrs(deep=False)
