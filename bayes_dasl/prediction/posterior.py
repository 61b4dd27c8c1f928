"""Draws to and from an xarray.DataTree with ArviZ's groups, and to and from a file."""

import dataclasses
import hashlib
import io
import json
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import xarray as xr

from .._findings import PARTICLES
from .._jax.memory import on_host
from .._jax.tree import parts_inside, short_names
from .._runs.files import replacing
from .._runs.hdf5 import check_contained
from .._statistics.describe_distributions import bounds, chosen_bounds, describe_distribution
from ..data.censoring import CODE, LIMIT
from ..data.datasets import in_units, index_of, units_of
from ..data.dates import counted_in, refuse_mixed
from ..errors import MismatchError, ModelError, ReadError
from ..model import Model
from ..random import Dependent, RandomLeaf, paths
from .new_members import differ, of_members

COUNTS_IN = "counts_dates_in"


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


def ends_of(post: xr.DataTree) -> tuple[float, dict[str, np.ndarray]] | None:
    """The last time of the data and the states there, `(draw, …)` by name; none where the posterior
    has none.
    """
    if "end" not in post.children:
        return None
    held = post["end"].to_dataset()
    states = {str(n): v.transpose("chain", "draw", ...).values for n, v in held.data_vars.items()}
    return float(held.attrs["time"]), {n: v.reshape(-1, *v.shape[2:]) for n, v in states.items()}


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
    if counted is not None and counted != (now := counted_in(model.index_units)):
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


# Behind the end of an HDF5 file, where those who read it do not look; netCDF has no checksum that
# holds for all of it.
_SEAL = b"\nbayes_dasl sha256 "


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode() + b"\n"


def seal(path: Path) -> None:
    """Put a checksum behind the end of a file; what it holds is read block by block."""
    with path.open("rb+") as file:
        digest = hashlib.file_digest(file, "sha256")
        file.seek(0, os.SEEK_END)
        file.write(_SEAL + digest.hexdigest().encode() + b"\n")


def _unsealed(written: bytes) -> bytes:
    """What was sealed; files of other programs, which have no seal, are as they are.

    Raises:
        ValueError: if it has changed since.
    """
    content, seal, digest = written.rpartition(_SEAL)
    if seal and digest != _digest(content):
        raise ValueError("its checksum is another than when it was written")
    return content if seal else written


def to_bytes(tree: xr.DataTree) -> bytes:
    """A posterior or a forecast as netCDF."""
    whole = io.BytesIO()
    tree.to_netcdf(whole, engine="h5netcdf")
    return whole.getvalue()


def from_bytes(content: bytes) -> xr.DataTree:
    """What `to_bytes` made bytes of.

    Raises:
        ValueError: for a file that reaches beyond itself or claims more memory than there is.
    """
    check_contained(io.BytesIO(content), on_host())
    with xr.open_datatree(io.BytesIO(content), engine="h5netcdf") as tree:
        return tree.load()


def save(tree: xr.DataTree, path: str | os.PathLike) -> Path:
    """Write a posterior or a forecast to netCDF: to a temporary file first, then renamed.

    Args:
        tree: what `fit`, `forecast` or another verb returned.
        path: the file; one that is there already is replaced.

    Raises:
        MismatchError: for what is no such tree.
        WriteError: if it cannot be written: a file that was there before is then untouched.
    """
    if not isinstance(tree, xr.DataTree):
        raise MismatchError(
            "save takes what fit or forecast returned, an xarray.DataTree, not "
            f"{type(tree).__name__}"
        )
    path = Path(path)
    with replacing(path) as temporary:
        # By way of memory: on a full disk HDF5 would not raise but crash Python, and the draws
        # would be lost.
        temporary.write_bytes(to_bytes(tree))
        seal(temporary)
    return path


def load(path: str | os.PathLike) -> xr.DataTree:
    """Read a posterior or a forecast into memory. A bit that has changed since `save` wrote the
    file is seen.

    The checksum is no part of netCDF: a file that another program has written anew, as h5py does
    with one that it opens to write, has none any more, and is read as it is.

    Args:
        path: a file that `save` wrote.

    Raises:
        ReadError: if the file is missing, torn, or not netCDF; also if it reaches for another file,
            or claims more memory than there is.
    """
    path = Path(path)
    if not path.is_file():
        raise ReadError(f"there is no file {path}")
    try:
        return from_bytes(_unsealed(path.read_bytes()))
    except (OSError, ValueError, KeyError, MemoryError) as error:
        raise ReadError(f"{path} is torn or not a netCDF file: {error}") from error
