"""Fit a model to data with any engine, and resume a fit that was killed."""

import contextlib
import json
import os
import time
import warnings
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array

from .._findings import Finding, to_json
from .._jax.blas import one_thread_a_factor
from .._jax.devices import prepare
from .._jax.keys import as_key, printable
from .._runs.journal import Journal, ProgressBar, read_identity
from .._runs.lock import alone_in
from ..errors import ReadError
from ..inference.device import check_device, computing_on
from ..inference.engine import AbstractEngine, check_engine, restored
from ..inference.nuts import NUTS
from ..inference.pose_problem import pose
from ..inference.problem import log_priors_of
from ..model import Model
from ..model.unit_check import check_units
from ..prediction.confounding import confounding
from ..prediction.identity import versions
from ..priors import draw_prior
from .groups import (
    PRIOR_DRAWS,
    data_groups,
    looked_at,
    modes_group,
    predictive_groups,
    provenance,
    training_group,
    without_chains,
)


def fit(
    model: Model,
    data: xr.Dataset,
    engine: AbstractEngine | None = None,
    *,
    progress: bool | None = None,
    checkpoint: str | os.PathLike | None = None,
    device: str = "auto",
    key: int | Array = 0,
) -> xr.DataTree:
    """Draw from the posterior of a model given data.

    Data, model and shapes are checked before anything is compiled. Ctrl-C during the sampling of
    NUTS or ManyChain keeps the draws so far, with a warning and the attribute `interrupted`. Other
    engines make draws only in their last steps. Ctrl-C before any draws raises KeyboardInterrupt; a
    checkpoint keeps the finished steps. A failed `eqx.error_if` in the model raises no error here.
    Return NaN in the model instead, and the draw is rejected.

    Args:
        model: the model.
        data: a dataset with the index, the observables (NaN if missing), the forcings of the model
            and the variables that its noise reads. Variables in other units than the model's are
            converted.
        engine: the algorithm that draws from the posterior, by default `NUTS()`.
        progress: whether a progress bar is shown, by default in a terminal or a notebook.
        checkpoint: a folder that keeps every step of the run. After a kill, the same call (or
            `resume`) continues from the last step and returns the draws of an uninterrupted run.
            One process at a time can use the folder.
        device: "cpu", "gpu", or "auto" for the kind with the most gradients per second. The
            attribute `device` of the result names it.
        key: random seed, a whole number or a JAX random key. The same seed gives the same draws on
            the same machine, as long as the cache folder remembers the measured speed of gradients.
            On other devices draws agree to rounding.

    Returns:
        A DataTree with ArviZ's groups: `posterior`, `sample_stats`, `log_prior`, `log_likelihood`,
        `posterior_predictive`, `prior`, `prior_predictive`, `sample_stats_prior`, `observed_data`,
        `constant_data`, and `conditional_mean` (the mean of each datum given each draw).

        Missing data are left out of `log_likelihood`, `posterior_predictive`, `prior_predictive`
        and `observed_data`. In these groups an observable with gaps has the dimension
        `<name>_datum`; the group `fitted_data` has all observables with their gaps.
        `log_likelihood` has one variable. For several observables it is `joint`, and the log
        likelihood of each observable is a coordinate.

        Some fits have further groups. Engines that search for modes add `modes`. Gradient descent
        adds `training`: the loss and its terms at each step. A network in the vector field of an
        `ODE`, also in a hybrid of layers, adds `vector_field`: the rates of each draw at the mean
        states of all draws, and along the paths of four draws. Constraints, or a layer with
        constraint residuals, add `constraint_residual`: the root mean square of each residual, in
        units of its tolerance.

    Raises:
        DataError: if the model cannot be fitted to the data, or the units of parameters and data
            make the equations wrong by a factor. With a checkpoint also if the model calls Python
            objects that cannot be read.
        ModelError: if the model does not match the data, the engine cannot draw from it, or the
            device does not exist.
        MismatchError: if the checkpoint belongs to another run.
        ReadError: if the folder is not a checkpoint.
        WriteError: if another process uses the folder, or a step cannot be written.

    Example:
        ```python
        post = bd.fit(model, train, bd.NUTS(draws=200), key=0)
        print(post["posterior"]["rate"].mean())
        ```
    """
    began = time.perf_counter()
    prepare()
    # 1. Refuse bad input before anything is compiled.
    engine = NUTS() if engine is None else engine
    check_device(device)
    check_engine(engine)
    problem = pose(model, data)
    data = model.in_own_units(data)
    check_units(model, model.in_numbers(data))
    # Only a checkpoint needs the fingerprint, which some models do not have.
    key_run, key_prior, key_predict = jax.random.split(as_key(key), 3)
    identity = run_identity(problem.fingerprint(needed=checkpoint is not None), engine, key)

    # Values of all random leaves at a draw, and the log prior of each leaf, by path.
    def named(position):
        values = problem.constrain(position)
        return values, log_priors_of(model, values)

    with (
        alone_in(checkpoint),
        one_thread_a_factor(),
        computing_on(
            device, problem, engine.batch, journal := Journal(checkpoint, identity)
        ) as computed_on,
    ):
        # 2. Draws in the unconstrained space.
        with _explained_stop(journal, "before there were draws"), ProgressBar(progress) as bar:
            samples = engine.run(problem, key=key_run, journal=journal, bar=bar)
        if samples.interrupted:
            drawn = samples.positions.shape[1]
            warnings.warn(
                f"stopped early: {drawn} of {engine.draws} draws of each chain are kept",
                stacklevel=2,
            )
        sampled = time.perf_counter()
        # 3. Named parameters, predictions and checks of the draws.
        found: list[Finding] = []
        with _explained_stop(journal, "while the draws were looked at"):
            draws, log_prior = jax.tree.map(
                np.asarray, jax.jit(jax.vmap(jax.vmap(named)))(samples.positions)
            )
            prior = jax.tree.map(np.asarray, draw_prior(model, PRIOR_DRAWS, key=key_prior))
            predictive = predictive_groups(
                problem, data, draws, log_prior, prior, samples, found, key=key_predict
            )
            flat = without_chains(draws)
            confounded = looked_at(
                "confounding", lambda: confounding(model, problem.inputs, flat), found
            )
    # 4. One tree with all groups and the provenance.
    tree = xr.DataTree.from_dict(
        predictive
        | ({} if confounded is None else {"confounding": confounded})
        | data_groups(model, data, float(problem.inputs.start))
        | modes_group(problem, samples.modes)
        | training_group(samples.curves)
    )
    tree.attrs = {
        **provenance(model, data),
        "engine": repr(engine),
        "device": computed_on,
        "key": printable(key),
        "draws_requested": engine.draws,
        "posterior_sha256": identity["posterior_sha256"],
        "sampling_time_s": sampled - began,
        "wall_time_s": time.perf_counter() - began,
        **samples.attributes,
        "findings": to_json((*samples.findings, *found)),
    }
    return tree


@contextlib.contextmanager
def _explained_stop(journal: Journal, when: str) -> Iterator[None]:
    """Make KeyboardInterrupt say when it came, and whether finished steps are kept.

    Args:
        journal: the journal of the run.
        when: the phase of the run, in words.
    """
    try:
        yield
    except KeyboardInterrupt:
        kept = "no checkpoint was given to keep the work so far"
        if journal.folder is not None:
            kept = f"the steps so far are kept in {journal.folder}: the same call goes on from them"
        raise KeyboardInterrupt(f"stopped {when}; {kept}") from None


def resume(
    model: Model,
    data: xr.Dataset,
    checkpoint: str | os.PathLike,
    *,
    progress: bool | None = None,
    device: str = "auto",
) -> xr.DataTree:
    """Continue the fit of a checkpoint, with its engine and random seed.

    The draws equal those of an uninterrupted `fit`, to the last bit on the same machine.

    Args:
        model: the model of that fit.
        data: the data of that fit.
        checkpoint: the folder of the checkpoint.
        progress: whether a progress bar is shown, by default in a terminal or a notebook.
        device: "cpu", "gpu" or "auto", as for `fit`.

    Raises:
        ReadError: if there is no checkpoint, or its engine or random seed cannot be read.
        MismatchError: if the checkpoint belongs to another model or other data.
        DataError: if the model cannot be fitted to the data.
        ModelError: if the model does not match the data, or the device does not exist.
        WriteError: if another process uses the folder, or a step cannot be written.

    Returns:
        The DataTree that `fit` returns.
    """
    identity = read_identity(checkpoint)
    return fit(
        model,
        data,
        _restored_engine(identity.get("engine")),
        progress=progress,
        checkpoint=checkpoint,
        device=device,
        key=_restored_key(identity.get("key")),
    )


def _restored_engine(held: int | str | None) -> AbstractEngine:
    """Return the engine of a checkpoint.

    Args:
        held: the value of `engine` in the checkpoint: JSON of the class and its fields.

    Raises:
        ReadError: if the value is no JSON object, or its class is not defined.
    """
    # The text is a JSON object of the class and its fields.
    try:
        stored = dict(json.loads(str(held)))
    except (ValueError, TypeError) as error:  # no JSON, or not of an object
        raise ReadError(
            f"the checkpoint was made by {held!r}, which is no engine: call bd.fit again"
        ) from error
    return restored(stored)


def _restored_key(held: int | str | None) -> int | Array:
    """Return the random seed of a checkpoint.

    Args:
        held: the value of `key` in the checkpoint: a whole number, or JSON of a number or of the
            integers of a JAX key.

    Raises:
        ReadError: if it is not a key of JAX's default generator; the checkpoint does not name other
            generators.
    """
    try:
        # Large whole numbers are stored as text, and JAX keys as lists of 32-bit integers.
        found = json.loads(str(held))
        if isinstance(found, int):
            return found
        return jax.random.wrap_key_data(jnp.asarray(found, jnp.uint32))
    except (ValueError, TypeError, OverflowError) as error:
        raise ReadError(
            f"the checkpoint was made with {held}, which is no key of jax.random.key(…): call "
            "bd.fit with the same engine, key and checkpoint instead"
        ) from error


def belongs_to(
    checkpoint: str | os.PathLike,
    model: Model,
    data: xr.Dataset,
    engine: AbstractEngine,
    *,
    key: int | Array,
) -> bool:
    """Whether a checkpoint belongs to a fit of this model, data, engine and seed.

    If so, the fit can be resumed from it.

    Args:
        checkpoint: the folder of the checkpoint.
        model: the model.
        data: the data.
        engine: the engine.
        key: random seed of the fit.

    Raises:
        ReadError: if there is no checkpoint, or it is damaged.
        DataError: if the data are not valid for the model.
        ModelError: if the model does not match the data, or calls Python objects that cannot be
            read.
    """
    return read_identity(checkpoint) == run_identity(
        pose(model, data).fingerprint(needed=True), engine, key
    )


def run_identity(posterior: str, engine: AbstractEngine, key: int | Array) -> dict[str, str | int]:
    """Return the identity of a run, which its checkpoint stores.

    A run can be resumed only if its identity equals the stored one. Package versions are part of
    it, since other versions may give other draws.

    Args:
        posterior: the hash of model, inputs and data, from `Problem.fingerprint`.
        engine: the engine.
        key: random seed.

    Returns:
        The keys `versions`, `engine`, `key` and `posterior_sha256`.
    """
    return {
        "versions": ", ".join(f"{name} {version}" for name, version in versions().items()),
        "engine": json.dumps(engine.stored(), sort_keys=True, default=repr),
        "key": printable(key),
        "posterior_sha256": posterior,
    }
