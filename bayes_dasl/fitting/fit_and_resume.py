"""Fit a model to data: one verb, whatever the engine; and go on with a fit that was killed."""

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

    Data, model and shapes are checked before anything is compiled. Ctrl-C while NUTS or ManyChain
    sample keeps the draws so far: a warning says so, and so does the attribute `interrupted`.
    Before there are draws of the posterior, which other engines make in their last steps, Ctrl-C
    raises KeyboardInterrupt, and a checkpoint keeps the steps. A runtime check by `eqx.error_if` in
    the model does not raise here: return NaN, and the draw is rejected.

    Args:
        model: the model.
        data: a dataset with the index, the observables (NaN where missing), the forcings of the
            model and what its noise reads of each datum. Those in other units than the model says
            are converted to its units.
        engine: how draws are made, `NUTS()` unless given.
        progress: whether a bar is shown; unless told, on a terminal.
        checkpoint: a folder in which every step of the run is kept as it is done. Called again
            after the process was killed, `fit` (or `resume`) goes on from the last step and returns
            the draws of an uninterrupted run. One process at a time can be at work in it.
        device: "cpu", "gpu", or "auto": the kind with the most gradients a second, as the attribute
            `device` says.
        key: a whole number or a JAX random key. The same key gives the same draws on the same
            machine, as long as the cache folder remembers how gradients were measured to be the
            fastest; with other devices, to rounding.

    Returns:
        A DataTree with ArviZ's groups: `posterior`, `sample_stats`, `log_prior`, `log_likelihood`,
        `posterior_predictive`, `prior`, `prior_predictive`, `sample_stats_prior`, `observed_data`,
        `constant_data`, and `conditional_mean` (the mean of each datum given each draw). Data that
        are missing are left out of `log_likelihood`, `posterior_predictive`, `prior_predictive` and
        `observed_data`: an observable that has gaps runs along `<name>_datum` there, and
        `fitted_data` has it as it was given. `log_likelihood` has one variable: of several
        observables it is `joint`, beside which each is a coordinate. Engines that look for modes
        add `modes`; those that descend add `training`, the loss and its terms; a network in the
        vector field of an `ODE`, alone or in a hybrid of layers, adds `vector_field`, the rates of
        each draw at the mean states of all draws and along the paths of four; a model with
        constraints, or a layer with mismatches of its own, adds `mismatch`, their root mean square,
        in units of what is tolerated.

    Raises:
        DataError: for data that the model cannot be fitted to, or units of parameters and data that
            make the equations wrong by a factor; with a checkpoint also for a model that cannot be
            told from others.
        ModelError: for a model that does not fit the data, an engine that cannot draw from it, or a
            device that is not here.
        MismatchError: for a checkpoint of another run.
        ReadError: for a folder that holds something else.
        WriteError: where another process is at work in it, or a step cannot be written.

    Example:
        ```python
        post = bd.fit(model, train, bd.NUTS(draws=200), key=0)
        print(post["posterior"]["rate"].mean())
        ```
    """
    began = time.perf_counter()
    prepare()
    engine = NUTS() if engine is None else engine
    check_device(device)
    check_engine(engine)
    problem = pose(model, data)
    data = model.in_own_units(data)
    check_units(model, model.in_numbers(data))
    key_run, key_prior, key_predict = jax.random.split(as_key(key), 3)
    identity = run_identity(problem.fingerprint(needed=checkpoint is not None), engine, key)

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
        with _told_if_stopped(journal, "before there were draws"), ProgressBar(progress) as bar:
            samples = engine.run(problem, key=key_run, journal=journal, bar=bar)
        if samples.interrupted:
            drawn = samples.positions.shape[1]
            warnings.warn(
                f"stopped early: {drawn} of {engine.draws} draws of each chain are kept",
                stacklevel=2,
            )
        sampled = time.perf_counter()
        told: list[Finding] = []
        with _told_if_stopped(journal, "while the draws were looked at"):
            draws, log_prior = jax.tree.map(
                np.asarray, jax.jit(jax.vmap(jax.vmap(named)))(samples.positions)
            )
            prior = jax.tree.map(np.asarray, draw_prior(model, PRIOR_DRAWS, key=key_prior))
            predictive = predictive_groups(
                problem, data, draws, log_prior, prior, samples, told, key=key_predict
            )
            flat = {path: v.reshape(-1, *v.shape[2:]) for path, v in draws.items()}
            confounded = looked_at(
                "confounding", lambda: confounding(model, problem.inputs, flat), told
            )
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
        "findings": to_json((*samples.findings, *told)),
    }
    return tree


@contextlib.contextmanager
def _told_if_stopped(journal: Journal, when: str) -> Iterator[None]:
    """Who stops a fit from which nothing can be returned yet is told what became of its work."""
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
    """Go on with the fit whose checkpoint lies in a folder.

    Engine and random key are those that it was begun with. The result is that of `fit` without the
    interruption, to the last bit on the same machine.

    Args:
        model: the model of that fit.
        data: the data of that fit.
        checkpoint: the folder.
        progress: whether a bar is shown; unless told, on a terminal.
        device: as for `fit`.

    Raises:
        ReadError: if there is no checkpoint.
        MismatchError: if it belongs to another model or other data.
        DataError: for data that the model cannot be fitted to.
        ModelError: for a model that does not fit the data, or a device that is not here.
        WriteError: if another process is at work in the folder, or a step cannot be written.

    Returns:
        The DataTree that `fit` returns.
    """
    identity = read_identity(checkpoint)
    engine, key = _engine(identity.get("engine")), _key(identity.get("key"))
    return fit(
        model, data, engine, progress=progress, checkpoint=checkpoint, device=device, key=key
    )


def _engine(held: int | str | None) -> AbstractEngine:
    """The engine from what a checkpoint says of it.

    Raises:
        ReadError: if that is none that is defined here.
    """
    try:
        stored = dict(json.loads(str(held)))
    except (ValueError, TypeError) as error:  # no JSON, or not of an object
        raise ReadError(
            f"the checkpoint was made by {held!r}, which is no engine: call bd.fit again"
        ) from error
    return restored(stored)


def _key(held: int | str | None) -> int | Array:
    """The key from what a checkpoint says of it.

    Raises:
        ReadError: if it is none, or one of another kind than JAX's own: its numbers do not say
            which.
    """
    if isinstance(held, int):
        return held
    try:
        found = json.loads(str(held))
        return (
            found
            if isinstance(found, int)
            else jax.random.wrap_key_data(jnp.asarray(found, jnp.uint32))
        )
    except (ValueError, TypeError, OverflowError) as error:
        raise ReadError(
            f"the checkpoint was made with {held}, which is no key of jax.random.key(…): call "
            "bd.fit with the same "
            "engine, key and checkpoint instead"
        ) from error


def belongs_to(
    checkpoint: str | os.PathLike,
    model: Model,
    data: xr.Dataset,
    engine: AbstractEngine,
    *,
    key: int | Array,
) -> bool:
    """Whether a checkpoint is that of this fit, so that the fit can go on from it.

    Raises:
        ReadError: if there is none, or it is torn.
    """
    return read_identity(checkpoint) == run_identity(
        pose(model, data).fingerprint(needed=True), engine, key
    )


def run_identity(posterior: str, engine: AbstractEngine, key: int | Array) -> dict[str, str | int]:
    """What a checkpoint is of. Other versions may draw other numbers, and half of each would be a
    sample of neither.
    """
    return {
        "versions": ", ".join(f"{name} {version}" for name, version in versions().items()),
        "engine": json.dumps(engine.stored(), sort_keys=True, default=repr),
        "key": printable(key),
        "posterior_sha256": posterior,
    }
