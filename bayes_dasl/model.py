"""A layer and observation noise: together a NumPyro model."""

from collections.abc import Mapping

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import xarray as xr
from jaxtyping import Array, Float

from ._errors import BayesDaslError, DataError, ModelError
from .data import Inputs, check_units, checked_times, inputs, observations
from .layers import AbstractLayer, Prediction
from .noise import AbstractNoise
from .random import Module, paths, sample

type Observed = dict[str, Float[Array, " time"]]


class Model(Module):
    """A scientific layer observed with noise: a NumPyro model whose parameters are the random leaves.

    `noise` is one noise model for every output of the layer (its parameters are then shared), or a dict
    that gives each observable its own. Calling the model runs it under NumPyro: `model(data)` conditions on
    the observables that the dataset holds, `model(inputs(data))` draws them. A draw at which the solver fails
    has log density −inf and a finite gradient.

    Raises: ModelError if the noise names something that the layer does not predict, or nothing is random.
    """

    layer: AbstractLayer
    noise: AbstractNoise | Mapping[str, AbstractNoise]

    def __check_init__(self):
        if not isinstance(self.layer, AbstractLayer):
            raise ModelError(f"layer must be a layer such as bd.ODE, not {type(self.layer).__name__}")
        named = self.noise.values() if isinstance(self.noise, Mapping) else (self.noise,)
        for noise in named:
            if not isinstance(noise, AbstractNoise):
                raise ModelError(
                    f"noise must be a noise model such as bd.NormalNoise, or a dict of them, not {noise!r}"
                )
        for name in self.observables:
            if name not in self.layer.outputs:
                raise ModelError(
                    f"observable '{name}' is not an output of the model; its outputs are "
                    f"{', '.join(self.layer.outputs)}"
                )

    @property
    def observables(self) -> tuple[str, ...]:
        return tuple(self.noise) if isinstance(self.noise, Mapping) else self.layer.outputs

    def noise_of(self, observable: str) -> AbstractNoise:
        return self.noise[observable] if isinstance(self.noise, Mapping) else self.noise

    def __call__(self, data: xr.Dataset | Inputs, observed: Observed | None = None) -> None:
        """Run as a NumPyro model; give a dataset, or inputs and observed arrays (NaN = missing)."""
        if isinstance(data, xr.Dataset):
            held = [name for name in self.observables if name in data]
            observed = {name: jnp.asarray(observations(data, name)) for name in held}
            data = self.inputs(data)
        realised = sample(self)
        prediction = realised.layer(data)
        # NUTS may propose a corner where the solver fails: reject that draw, keep the chain alive.
        numpyro.factor("solver_ok", jnp.where(prediction.ok, 0.0, -jnp.inf))
        for name in self.observables:
            noise = realised.noise_of(name)(prediction.values[name])
            values = None if observed is None else observed.get(name)
            if values is None:
                numpyro.sample(name, noise)
            else:
                seen = ~jnp.isnan(values)
                numpyro.sample(name, noise.mask(seen), obs=jnp.where(seen, values, 1.0))

    def inputs(self, data: xr.Dataset, *, start: float | None = None) -> Inputs:
        """Times and forcings for this model's layer."""
        start = getattr(self.layer, "start", None) if start is None else start
        return inputs(data, start=start, forcings=self.layer.forcings)

    def conditional(self, prediction: Prediction) -> dict[str, dist.Distribution]:
        """The distribution of each observable, given a prediction of a realised model."""
        return {name: self.noise_of(name)(prediction.values[name]) for name in self.observables}


def check_data(model: Model, data: xr.Dataset) -> Observed:
    """Refuse data that the model cannot be fitted to, before anything is compiled; else the observed arrays.

    Raises: DataError or ModelError that names what is wrong and what would be right.
    """
    if not isinstance(model, Model):
        raise ModelError(f"model must be a bd.Model, not {type(model).__name__}")
    checked_times(data)
    if not paths(model):
        raise ModelError("nothing in the model is random: put a distribution where a number is unknown")
    for leaf in paths(model).values():
        if leaf.distribution.is_discrete:
            kind = type(leaf.distribution).__name__
            raise ModelError(
                f"'{leaf.path}' has the discrete distribution {kind}: only continuous ones can be inferred"
            )
    for name in (*model.observables, *model.layer.forcings, *paths(model)):
        if "/" in name:
            raise ModelError(f"'{name}' has a slash, which names a group in a DataTree: choose another name")
    for name in (*model.observables, *model.layer.forcings):
        if name not in data:
            role = "observable" if name in model.observables else "forcing"
            known = ", ".join(sorted(map(str, data.data_vars))) or "nothing"
            raise DataError(f"{role} '{name}' is not in the data; they hold {known}")
        check_units(data, name, model.layer.units.get(name, ""))
    observed = {name: _observed(model, data, name) for name in model.observables}
    check_shapes(model, model.inputs(data))
    return observed


def _observed(model: Model, data: xr.Dataset, name: str) -> Float[Array, " time"]:
    noise = model.noise_of(name)
    values = observations(data, name, integer=noise.counts)
    if noise.positive and (values[~np.isnan(values)] <= 0).any():
        at = float(data["time"].values[np.nan_to_num(values, nan=1.0) <= 0][0])
        raise DataError(f"observable '{name}' is not positive at time {at:g}, as {type(noise).__name__} needs")
    return jnp.asarray(values)


def check_shapes(model: Model, given: Inputs) -> None:
    """Trace the model once, without compiling it, and refuse a wrong shape.

    Raises: ModelError that names the random leaves whose shape is not that of one number.
    """
    leaves = paths(model)

    def evaluate():
        with numpyro.handlers.seed(rng_seed=0):
            realised = sample(model)
            prediction = realised.layer(given)
            return {name: d.batch_shape for name, d in realised.conditional(prediction).items()}

    odd = [f"{leaf.path} {leaf.shape}" for leaf in leaves.values() if leaf.shape and leaf.group == "science"]
    hint = f"; look at the distributions of another shape than one number: {', '.join(odd)}" if odd else ""
    shapes: dict = {}
    try:
        eqx.filter_eval_shape(lambda: shapes.update(evaluate()))
    except BayesDaslError:
        raise
    except Exception as error:  # whatever a user's equation may raise
        raise ModelError(f"the model cannot be evaluated: {type(error).__name__}: {error}{hint}") from error
    want = given.times.shape
    for name, shape in shapes.items():
        if shape != want:
            raise ModelError(
                f"the model gives '{name}' the shape {shape}, but one number for each time is needed: {want}{hint}"
            )
