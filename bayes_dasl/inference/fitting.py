"""Fit a model to data: one verb, whatever the engine."""

import datetime
import importlib.metadata
import os
import platform
import time
import warnings
from typing import Protocol, runtime_checkable

import jax
import numpy as np
import xarray as xr
from jaxtyping import Array

from .._errors import MismatchError, ModelError
from .._jax.devices import prepare
from .._jax.keys import as_key, printable
from .._runs.journal import Journal, read_identity
from .._runs.progress import ProgressBar
from ..data.datasets import fingerprint
from ..model import Model
from ..prediction.confounding import confounding
from ..prediction.posterior import (
    by_chain,
    check_belongs,
    draws_dataset,
    known_bounds,
    mismatch_group,
    over_data,
    plain_attributes,
    signature,
    with_coordinates,
    with_log_factor,
)
from ..prediction.predictive import Draws, push
from ..prediction.vector_fields import rates_on_mean_path
from ..random import draw_prior
from .device import check_device, computing_on
from .nuts.sampler import NUTS
from .problem import Problem, pose
from .samples import Modes, Samples

_PRIOR_DRAWS = 500
_PACKAGES = ("bayes_dasl", "jax", "numpyro", "diffrax", "blackjax")


@runtime_checkable
class Engine(Protocol):
    """Draws from the posterior of a problem; a frozen dataclass of plain numbers and words.

    `draws` are those of each chain. An engine may have a property `batch`, the number of positions that it looks at
    together. Long work is done in steps of the journal, so that it can be resumed.
    """

    @property
    def draws(self) -> int: ...

    def run(self, problem: Problem, *, key: Array, journal: Journal, bar: ProgressBar) -> Samples: ...


def fit(
    model: Model,
    data: xr.Dataset,
    engine: Engine | None = None,
    *,
    progress: bool | None = None,
    checkpoint: str | os.PathLike | None = None,
    device: str = "auto",
    key: int | Array = 0,
) -> xr.DataTree:
    """Draw from the posterior of a model given data.

    Data, model and shapes are checked before anything is compiled. The engine is `NUTS()` unless given.
    Ctrl-C while NUTS or ManyChain sample keeps the draws so far: a warning says so, and so does the attribute
    `interrupted`.
    `progress` shows a bar (default: on a terminal). The same key gives the same draws on the same machine, as long as
    the cache folder remembers how gradients were measured to be the fastest; with other devices, to rounding.

    With a folder `checkpoint`, every step of the run is kept there as it is done. Called again after the process was
    killed, `fit` (or `resume`) goes on from the last step and returns the draws of an uninterrupted run.
    `device` is `cpu`, `gpu`, or `auto`: the kind with the most gradients a second, as the attribute `device` says.
    A runtime check by `eqx.error_if` in the model does not raise here: return NaN, and the draw is rejected.

    Returns a DataTree with ArviZ's groups: `posterior`, `sample_stats`, `log_likelihood`, `prior`,
    `sample_stats_prior`, `observed_data`, `constant_data`, and `conditional_mean` (the mean of each datum
    given each draw); NUTS, ManyChain, SVI and Laplace add `modes`; engines that descend add `training`, the loss and
    its terms; a network in the vector field of an `ODE`, alone or in a hybrid of layers, adds `vector_field`, the rates
    of each draw at the mean states of all draws; a model with constraints, or a layer with mismatches of its own, adds
    `mismatch`, their root mean square, in units of what is tolerated.
    Raises: DataError, ModelError; MismatchError for a checkpoint of another run.
    """
    began = time.perf_counter()
    prepare()
    engine = NUTS() if engine is None else engine
    check_device(device)
    if isinstance(engine, type) or not isinstance(engine, Engine):
        raise ModelError(f"engine must be an engine such as bd.NUTS(), not {engine!r}")
    problem = pose(model, data)
    key_run, key_prior = jax.random.split(as_key(key))
    identity = _identity(problem, engine, key)
    journal = Journal(checkpoint, identity)
    batch = getattr(engine, "batch", 1)
    with computing_on(device, problem, batch, journal) as computed_on:
        with ProgressBar(progress) as bar:
            samples = engine.run(problem, key=key_run, journal=journal, bar=bar)
        if samples.interrupted:
            drawn = samples.positions.shape[1]
            warnings.warn(f"stopped by Ctrl-C: {drawn} of {engine.draws} draws of each chain are kept", stacklevel=2)
        sampled = time.perf_counter()
        constrained = jax.jit(jax.vmap(jax.vmap(problem.constrain)))(samples.positions)
        draws = jax.tree.map(np.asarray, constrained)
        prior = jax.tree.map(np.asarray, draw_prior(model, _PRIOR_DRAWS, key=key_prior))
        predictive = _predictive_groups(model, problem, data, draws, prior, _stats(samples))
    tree = xr.DataTree.from_dict(
        predictive
        | data_groups(model, problem, data)
        | _modes_group(model, problem, samples.modes)
        | _training_group(samples.curves)
    )
    tree.attrs = {
        **_provenance(),
        "engine": repr(engine),
        "device": computed_on,
        "key": printable(key),
        "draws_requested": engine.draws,
        "interrupted": int(samples.interrupted),
        "data_sha256": fingerprint(data[[*model.observables, *model.layer.forcings]]),
        "signature": signature(model),
        "bounds": known_bounds(model),
        "posterior_sha256": identity["posterior_sha256"],
        "sampling_time_s": sampled - began,
        "wall_time_s": time.perf_counter() - began,
        **samples.facts,
    }
    return tree


def _stats(samples: Samples) -> xr.Dataset:
    return with_coordinates(xr.Dataset({name: (("chain", "draw"), v) for name, v in samples.stats.items()}))


def _predictive_groups(
    model: Model, problem: Problem, data: xr.Dataset, draws: Draws, prior: Draws, sampled: xr.Dataset
) -> dict[str, xr.Dataset]:
    """What posterior draws say of the data, and how prior draws fare in the solver: pushed in one go."""
    both = {path: np.concatenate([prior[path], v.reshape(-1, *v.shape[2:])]) for path, v in draws.items()}
    pushed = push(model, problem.inputs, both, observed=problem.observed)
    health = {"ok": pushed.ok[None, :_PRIOR_DRAWS], "steps": pushed.steps[None, :_PRIOR_DRAWS]}
    stats = xr.Dataset({name: (("chain", "draw"), v) for name, v in health.items()})

    groups = {"posterior": draws_dataset(model, draws)}
    groups["sample_stats"] = with_log_factor(sampled, pushed.log_factor[_PRIOR_DRAWS:])

    def over_time(values: Draws) -> xr.Dataset:
        return over_data({name: v[_PRIOR_DRAWS:] for name, v in values.items()}, groups, ordered(model, data))

    groups |= mismatch_group({name: v[_PRIOR_DRAWS:] for name, v in pushed.mismatch.items()}, groups)
    flat = {path: v.reshape(-1, *v.shape[2:]) for path, v in draws.items()}
    found = confounding(model, problem.inputs, flat)
    groups |= {} if found is None else {"confounding": found}
    rates = rates_on_mean_path(model, problem.inputs, flat)
    groups |= {} if rates is None else {"vector_field": by_chain(rates, groups)}
    return groups | {
        "log_likelihood": over_time(pushed.log_likelihood),
        "conditional_mean": over_time(pushed.mean),
        "prior": draws_dataset(model, {path: v[None] for path, v in prior.items()}),
        "sample_stats_prior": with_coordinates(stats),
    }


def _modes_group(model: Model, problem: Problem, modes: Modes | None) -> dict[str, xr.Dataset]:
    """The modes by name, best first, with their log density in the unconstrained space."""
    if modes is None:
        return {}
    values = jax.jit(jax.vmap(problem.constrain))(modes.positions)
    dataset = draws_dataset(model, {path: np.asarray(v)[None] for path, v in values.items()})
    dataset = dataset.isel(chain=0, drop=True).rename(draw="mode")
    return {"modes": dataset.assign(lp=("mode", modes.log_densities))}


def _training_group(curves: dict[str, np.ndarray] | None) -> dict[str, xr.Dataset]:
    """What a descent went through: the loss and its terms, by member and step."""
    if curves is None:
        return {}
    steps, looks = curves["loss"].shape[1], curves["held_out"].shape[1]
    dims = {name: "look" if name == "held_out" else "step" for name in curves}
    dataset = xr.Dataset({name: (("member", dims[name]), values) for name, values in curves.items()})
    at = {"step": np.arange(1, steps + 1), "look": np.arange(1, looks + 1) * (steps // looks)}
    return {"training": dataset.assign_coords(at)}


def data_groups(model: Model, problem: Problem, data: xr.Dataset) -> dict[str, xr.Dataset]:
    known = data[list(model.layer.forcings)]
    known.attrs = {"start": float(problem.inputs.start)}
    observed = ordered(model, data).astype(float)
    observed.attrs = {}
    for dataset in (known, observed):
        for variable in dataset.variables.values():
            variable.attrs = plain_attributes(variable.attrs)
    return {"observed_data": observed, "constant_data": known}


def ordered(model: Model, data: xr.Dataset) -> xr.Dataset:
    """The observables of a dataset, their dimensions in the order of the model's."""
    return xr.Dataset({name: data[name].transpose(*model.dims(name)) for name in model.observables})


def versions() -> dict[str, str]:
    """The versions of what makes draws."""
    return {name: importlib.metadata.version(name) for name in _PACKAGES}


def check_same_posterior(model: Model, post: xr.DataTree) -> None:
    """Refuse a posterior of another model: other equations, priors or solver settings, not only other random leaves.

    Of a posterior from other versions of the libraries only the random leaves can be compared.
    Raises: MismatchError.
    """
    check_belongs(model, post)
    same_versions = all(post.attrs.get(f"version_{name}") == version for name, version in versions().items())
    if same_versions and post.attrs.get("posterior_sha256") != pose(model, fitted_data(post)).fingerprint():
        raise MismatchError(
            "this posterior belongs to another model with the same random leaves: an equation, a prior, a known number "
            "or a solver setting differs; after a correction by bd.check_solver the model is bd.tightened(model)"
        )


def fitted_data(post: xr.DataTree) -> xr.Dataset:
    """The data that a posterior was fitted to, with the units of each variable."""
    groups = [post[name].to_dataset() for name in ("observed_data", "constant_data")]
    return xr.merge(groups, combine_attrs="drop_conflicts").drop_attrs(deep=False)


def belongs_to(
    checkpoint: str | os.PathLike, model: Model, data: xr.Dataset, engine: Engine, *, key: int | Array
) -> bool:
    """Whether a checkpoint is that of this fit, so that the fit can go on from it.

    Raises: ReadError if there is none, or it is torn.
    """
    return read_identity(checkpoint) == _identity(pose(model, data), engine, key)


def _identity(problem: Problem, engine: Engine, key: int | Array) -> dict[str, str | int]:
    """What a checkpoint is of. Other versions may draw other numbers, and half of each would be a sample of neither."""
    return {
        "versions": ", ".join(f"{name} {version}" for name, version in versions().items()),
        "engine": repr(engine),
        "key": printable(key),
        "posterior_sha256": problem.fingerprint(),
    }


def _provenance() -> dict[str, str]:
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {
        "created": now,
        "inference_library": "bayes_dasl",
        "version_python": platform.python_version(),
        "platform": platform.platform(),
        **{f"version_{name}": version for name, version in versions().items()},
    }
