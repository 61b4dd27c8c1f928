"""What a posterior holds: draws by path, the fitted data, and the model that it belongs to."""

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
    """The last time of the data and the states there, `(draw, …)` by name; none where the posterior
    has none.
    """
    if "end" not in post.children:
        return None
    held = post["end"].to_dataset()
    states = {str(n): v.transpose("chain", "draw", ...).values for n, v in held.data_vars.items()}
    return float(held.attrs["time"]), {n: v.reshape(-1, *v.shape[2:]) for n, v in states.items()}


def are_chains(post: xr.DataTree) -> bool:
    """Whether the draws are those of chains, rather than members, masks or a point."""
    return bool(post.attrs.get("markov", 1))


def of_particles(post: xr.DataTree) -> bool:
    """Whether the draws are particles of independent runs in place of chains."""
    return post.attrs.get("draws_are") == PARTICLES


def draws_of(model: Model, post: xr.DataTree, group: str = "posterior") -> dict[str, np.ndarray]:
    """Draws of every random leaf, path → `(chain · draw, …)`, of a population for the members of
    the model.

    Raises:
        MismatchError: if the posterior belongs to another model.
    """
    check_belongs(model, post)
    dataset = post[group].to_dataset()
    by_path = {v.attrs["path"]: v for v in dataset.data_vars.values()}
    draws: dict[str, np.ndarray] = {}
    for path, leaf in paths(model).items():
        held = by_path[path]
        draws[path] = (
            of_members(leaf, held, draws) if leaf.dims else held.values.reshape(-1, *held.shape[2:])
        )
    return draws


def signature(model: Model) -> str:
    """What a posterior must share with a model: random leaves, their shapes for a member, owners,
    and observables.

    What is shared is known by its name alone, wherever it stands.
    """
    fields = {field.name for field in dataclasses.fields(model)}
    placed = lambda leaf: leaf.path.partition(".")[0] in fields  # noqa: E731
    leaves = {
        path: [list(leaf.shape[len(leaf.dims) :]), leaf.owners if placed(leaf) else "shared"]
        for path, leaf in paths(model).items()
    }
    return json.dumps({"leaves": leaves, "observables": sorted(model.observables)}, sort_keys=True)


def check_belongs(model: Model, post: xr.DataTree) -> None:
    """Refuse a posterior of another model.

    Raises:
        MismatchError: that names the random leaves that differ.
    """
    if not isinstance(model, Model):
        raise ModelError(f"model must be a bd.Model, not {type(model).__name__}")
    for group in ("posterior", "observed_data", "constant_data"):
        if not isinstance(post, xr.DataTree) or group not in post.children:
            raise MismatchError(
                f"this is no posterior: it has no group '{group}'; give the result of bd.fit"
            )
    theirs, ours = json.loads(post.attrs.get("signature", "{}")), json.loads(signature(model))
    if theirs == ours:
        return
    a, b = theirs.get("leaves", {}), ours["leaves"]
    parts = [
        f"only the posterior has {', '.join(sorted(set(a) - set(b)))}" if set(a) - set(b) else "",
        f"only the model has {', '.join(sorted(set(b) - set(a)))}" if set(b) - set(a) else "",
        *(
            f"{p} is {a[p]} in the posterior and {b[p]} in the model"
            for p in a
            if p in b and a[p] != b[p]
        ),
        ""
        if theirs.get("observables") == ours["observables"]
        else f"the posterior's observables are {theirs.get('observables')}, the model's "
        f"{ours['observables']}",
    ]
    raise MismatchError(
        f"this posterior belongs to another model: {'; '.join(p for p in parts if p)}"
    )


def fitted_observables(post: xr.DataTree) -> xr.Dataset:
    """The observables that a posterior was fitted to, over their whole index: NaN where missing."""
    return post["fitted_data" if "fitted_data" in post.children else "observed_data"].to_dataset()


def known_inputs(post: xr.DataTree) -> xr.Dataset:
    """The forcings of a fit, and what its noise reads of each datum; nothing in posteriors that
    were made by hand.
    """
    return post["constant_data"].to_dataset() if "constant_data" in post.children else xr.Dataset()


def with_what_is_censored(post: xr.DataTree) -> xr.Dataset:
    """The observables of a fit, with what the data say of their censoring as coordinates."""
    observed, known = fitted_observables(post), known_inputs(post)
    beside = [f"{name}{part}" for name in observed.data_vars for part in (CODE, LIMIT)]
    return observed.assign_coords({name: known[name] for name in beside if name in known})


def in_units_of_fit(model: Model, post: xr.DataTree, data: xr.Dataset) -> xr.Dataset:
    """New data in the units of the model, or, where it states none, in those of the data that it
    was fitted to.

    Raises:
        DataError: for units of another dimension, or of the index or a place, and for dates where
            the fit had numbers or the other way round.
        MismatchError: if the model counts dates in another way than that of the fit.
    """
    fitted = fitted_data(post)
    if model.index in fitted.coords:
        refuse_mixed(data, model.index, fitted[model.index], "the data of the fit")
    counted = post["constant_data"].attrs.get(COUNTS_IN)  # of dates alone
    if counted is not None and counted != (now := counted_in(model.reader.index_units)):
        raise MismatchError(
            f"the model counts dates in '{now}', that of the fit did in '{counted}'"
        )
    along = units_of(fitted.coords.to_dataset())
    data = in_units(
        model.in_own_units(data), {n: u for n, u in units_of(fitted).items() if n not in along}
    )
    return in_units(data, along, doubtful=True)


def fitted_data(post: xr.DataTree) -> xr.Dataset:
    """The data that a posterior was fitted to, with the units of each variable."""
    groups = [fitted_observables(post), post["constant_data"].to_dataset()]
    return xr.merge(groups, combine_attrs="drop_conflicts").drop_attrs(deep=False)
