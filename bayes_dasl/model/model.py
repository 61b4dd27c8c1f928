"""`Model`: a layer with observation noise, as a NumPyro model."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import xarray as xr
from jaxtyping import Array, Float

from .._statistics.tails import seen_and_filled
from ..data.layer_inputs import Inputs, Past
from ..errors import ModelError
from ..layers import AbstractFilter, AbstractLayer, Prediction
from ..layers._priors import check_priors
from ..layers.layer import AbstractPopulation, of_members
from ..noise import AbstractCrossCorrelation, AbstractNoise
from ..random import Module, Values, is_function, paths, sample
from .reading import Observed, Reader

type Constraint = Callable[[Values, Inputs], Float[Array, "..."]]


class Model(Module):
    """A scientific layer observed with noise: a NumPyro model with the random leaves as parameters.

    `model(data)` conditions on the observables in the dataset; `model(inputs(data))` draws them. A
    draw for which the solver fails has log density −∞ and a finite gradient.

    Args:
        layer: the layer that predicts, such as `bd.ODE` or a hybrid of layers.
        noise: one noise for all outputs of the layer, which then share its parameters, or a dict by
            observable. Outputs that are not in the dict are not observed.
        constraints: soft constraints by name. Each is a function of the layer's values and its
            inputs that returns residuals divided by their tolerance, of any shape. Each residual
            counts as a standard normal variable observed to be zero. The group `mismatch` holds the
            posterior of the residuals.
        cross_correlation: the correlation of the residuals of several observables, if any.
        varied_noise: the parameters of the noise that differ between subjects; set by copies only.

    Raises:
        ModelError: if the noise names an unknown output, if a distribution is no valid prior, if
            one object stands in two places without being shared, if a constraint is no function or
            its name is taken, or if observables cannot be correlated.

    Example:
        ```python
        model = bd.Model(bd.ODE(Decay(bd.between(0.1, 1.0)), {"y": 2.0}), bd.NormalNoise(0.1))
        print(bd.describe(model))
        ```
    """

    layer: AbstractLayer
    noise: AbstractNoise | Mapping[str, AbstractNoise]
    constraints: Mapping[str, Constraint]
    cross_correlation: AbstractCrossCorrelation | None
    varied_noise: tuple[str, ...] = eqx.field(static=True, metadata={"hidden": True})

    def __init__(
        self,
        layer: AbstractLayer,
        noise: AbstractNoise | Mapping[str, AbstractNoise],
        constraints: Mapping[str, Constraint] | None = None,
        cross_correlation: AbstractCrossCorrelation | None = None,
        varied_noise: tuple[str, ...] = (),
    ):
        found = ()
        # Random effects in the noise become arrays with one value for each subject.
        if isinstance(layer, AbstractPopulation):
            noise, found = layer.over_members(noise)
        self.layer = layer
        self.noise = noise
        self.constraints = {} if constraints is None else constraints
        self.varied_noise = found or varied_noise
        self.cross_correlation = cross_correlation

    def __check_init__(self):
        if not isinstance(self.layer, AbstractLayer):
            raise ModelError(
                f"layer must be a layer such as bd.ODE, not {type(self.layer).__name__}"
            )
        # 1. Noise that the layer can take.
        named = self.noise.values() if isinstance(self.noise, Mapping) else (self.noise,)
        for noise in named:
            if not isinstance(noise, AbstractNoise):
                raise ModelError(
                    "noise must be a noise model such as bd.NormalNoise, or a dict of them, not "
                    f"{noise!r}"
                )
            if noise.varies and isinstance(self.layer, AbstractFilter):
                raise ModelError(
                    f"{type(self.layer).__name__} needs noise of one scale, no VaryingScale nor "
                    "PerDatum"
                )
            if noise.looks_back and isinstance(self.layer, AbstractFilter):
                raise ModelError(
                    f"{type(self.layer).__name__} looks back at the data itself: give it "
                    f"bd.NormalNoise, not {type(noise).__name__}"
                )
        # 2. Observables that the layer predicts.
        if not self.observables:
            raise ModelError(
                "noise names no observable; the outputs of the model are "
                f"{', '.join(self.layer.outputs)}"
            )
        for name in self.observables:
            if name not in self.layer.outputs:
                raise ModelError(
                    f"observable '{name}' is not an output of the model; its outputs are "
                    f"{', '.join(self.layer.outputs)}"
                )
        # 3. Correlations and constraints.
        if self.cross_correlation is not None:
            if not isinstance(self.cross_correlation, AbstractCrossCorrelation):
                raise ModelError(
                    "cross_correlation must be a noise.CrossCorrelation, not "
                    f"{self.cross_correlation!r}"
                )
            self.cross_correlation.refuse(
                {name: (self.noise_of(name), self.dims(name)) for name in self.observables}
            )
        laws = self.constraints
        if not isinstance(laws, Mapping) or not all(map(is_function, laws.values())):
            raise ModelError(
                "constraints must be a dict of functions f(values, inputs), by the name of each law"
            )
        for name in self.constraints:
            if not isinstance(name, str) or "/" in name or name in ("chain", "draw"):
                raise ModelError(
                    f"a constraint cannot have the name {name!r}: no slash, and neither chain nor "
                    "draw"
                )
        # 4. Priors, and names of shared parameters.
        check_priors(self)
        taken = {*self.observables, *self.constraints, self.index}
        taken |= {"chain", "draw", "solver_ok", "mismatches"}
        fields = ("layer", "noise", "constraints", "cross_correlation")
        for path, leaf in paths(self).items():
            first = path.split(".")[0]
            shared = leaf.own == 1 + path.count(".")
            if path in taken or (shared and first in fields):
                raise ModelError(
                    f"what is shared cannot be called '{first}', which has another meaning: rename "
                    "it"
                )

    @property
    def observables(self) -> tuple[str, ...]:
        """The names of the observables."""
        if isinstance(self.noise, Mapping):
            return tuple(self.noise)
        return self.layer.outputs

    @property
    def index(self) -> str:
        """The name of the coordinate along which rows lie, such as `time`."""
        return self.layer.index

    def dims(self, observable: str) -> tuple[str, ...]:
        """Return the dimensions of an observable, the index first.

        Args:
            observable: its name.

        Returns:
            The names of the dimensions.
        """
        return self.reader.dims(observable)

    @property
    def reader(self) -> Reader:
        """What the layer and the noise read from data: inputs, observations, covariates."""
        noises = {name: self.noise_of(name) for name in self.observables}
        # Constraints may look at all times.
        return Reader(self.layer, noises, all_rows=bool(self.constraints))

    def inputs(self, data: xr.Dataset, *, start: float | None = None) -> Inputs:
        """Return the inputs of this model for a dataset.

        Args:
            data: a dataset with the index, the forcings of the layer and the variables that the
                noise reads. Observations are read by a filtering layer and by correlated noise
                only.
            start: the start of the solve, in the units of the index. The default is that of the
                layer, else the first time.

        Returns:
            Times, forcings, places, earlier observations, and what the noise reads for each datum.
        """
        return self.reader.inputs(data, start=start)

    def in_own_units(self, data: xr.Dataset) -> xr.Dataset:
        """Convert data to the units of the layer, if both state units.

        Args:
            data: a dataset with observables and forcings; variables in other units of the same
                dimension are converted.

        Returns:
            The converted dataset.

        Raises:
            DataError: if units have another dimension, or the index or a place has other units.
        """
        return self.reader.in_own_units(data)

    def in_numbers(self, data: xr.Dataset) -> xr.Dataset:
        """Replace dates of the index by the numbers of the layer.

        Args:
            data: a dataset with the index; one with numbers stays as it is.

        Returns:
            The dataset with numbers.

        Raises:
            DataError: if dates would coincide as numbers.
            ModelError: if the layer states no unit of time.
        """
        return self.reader.in_numbers(data)

    def __leaf_dims__(self, path: tuple[str, ...]) -> dict[str, tuple[Any, ...]]:
        """Return the dimension of a parameter of the noise that differs between subjects.

        Args:
            path: the names from the model to the leaf.

        Returns:
            The names of the subjects by the name of the dimension; empty for other parameters.
        """
        varies = path[0] == "noise" and ".".join(path[1:]) in self.varied_noise
        return {self.layer.dim: self.layer.members} if varies else {}  # pyright: ignore

    def __leaf_units__(self, path: tuple[str, ...]) -> str:
        """Return the units of a parameter of the noise that has those of its observable.

        Args:
            path: the names from the model to the leaf.

        Returns:
            The units that the layer states; empty if it states none, or for other parameters.
        """
        if path[0] != "noise":
            return ""
        names = self.observables
        field = path[1:]
        if isinstance(self.noise, Mapping):
            names = (path[1],)
            field = path[2:]
        noise = self.noise_of(names[0])
        # One noise may stand inside another, as in `Censored(NormalNoise(…))`.
        while isinstance(inner := getattr(noise, field[0]), AbstractNoise):
            noise = inner
            field = field[1:]
        if ".".join(field).removesuffix(".typical") not in noise.in_units_of_data:
            return ""
        stated = {self.layer.units.get(name, "") for name in names}
        if len(stated) == 1:
            return stated.pop()
        return ""

    def noise_of(self, observable: str) -> AbstractNoise:
        """Return the noise of an observable, whose parameters may be random leaves.

        Args:
            observable: its name.

        Returns:
            The noise.
        """
        if isinstance(self.noise, Mapping):
            return self.noise[observable]
        return self.noise

    def __call__(self, data: xr.Dataset | Inputs, observed: Observed | None = None) -> None:
        """Run as a NumPyro model, from a dataset, or from inputs and observed arrays.

        Args:
            data: a dataset, or the inputs of the layer.
            observed: with inputs, the data of each observable, `(time, …)`, NaN where missing;
                observables that it lacks are drawn.
        """
        if isinstance(data, xr.Dataset):
            data = self.in_own_units(data)
            observed = self.reader.observed(data, [n for n in self.observables if n in data])
            data = self.inputs(data)
        if observed is not None and data.past is None and self.reader.looks_back:
            data = dataclasses.replace(
                data, past=Past(data.times, observed, same=True, per_datum=data.per_datum)
            )
        realised = sample(self)
        prediction = realised.predict(data)
        # NUTS may propose a corner where the solver fails: reject that draw, keep the chain alive.
        numpyro.factor("solver_ok", jnp.where(prediction.ok, 0.0, -jnp.inf))
        if prediction.mismatches:
            numpyro.factor("mismatches", prediction.log_factor)
        # Correlated observables must be drawn with one random key.
        together = () if self.cross_correlation is None else self.cross_correlation.observables
        drawn = {*together} - {*(observed or ())}
        keys = dict.fromkeys(drawn, numpyro.prng_key()) if drawn else {}
        for name, noise in realised.conditional(prediction, data).items():
            values = None if observed is None else observed.get(name)
            if values is None:
                numpyro.sample(name, noise, rng_key=keys.get(name))
            else:
                seen, filled = seen_and_filled(values)
                numpyro.sample(name, noise.mask(seen), obs=filled)

    def predict(self, inputs: Inputs) -> Prediction:
        """Return the prediction of the layer, and the residuals of the constraints.

        Args:
            inputs: start, times, forcings and places, as `inputs` returns them.

        Returns:
            The prediction of a model without random leaves.

        Raises:
            ModelError: if a constraint and a residual of the layer have the same name.
        """
        if isinstance(self.layer, AbstractFilter):
            prediction = self.layer(
                inputs, {name: self.noise_of(name).variance for name in self.observables}
            )
        else:
            whole, at, then = self.reader.solved_at(inputs)
            prediction = self.layer(whole)
            if whole.past is not None:
                asked = {name: v[at] for name, v in prediction.values.items()}
                before = {name: v[then] for name, v in prediction.values.items()}
                prediction = dataclasses.replace(prediction, values=asked, before=before)
        broken = {
            name: jnp.asarray(law(prediction.values, inputs))
            for name, law in self.constraints.items()
        }
        for name in broken:
            if name in prediction.mismatches:
                raise ModelError(
                    f"constraint '{name}' has the name of a mismatch of the layer itself: rename it"
                )
        # Masked as the values are: at the values of a failed solve a law may be singular.
        broken = {name: jnp.where(prediction.ok, value, 0.0) for name, value in broken.items()}
        return dataclasses.replace(prediction, mismatches=prediction.mismatches | broken)

    def conditional(self, prediction: Prediction, inputs: Inputs) -> dict[str, dist.Distribution]:
        """Return the distribution of each observable around a prediction.

        Args:
            prediction: the result of `predict`.
            inputs: its inputs.

        Returns:
            NumPyro distributions by observable.

        Raises:
            ModelError: if the layer predicts a variance and observables are correlated.
        """
        values = prediction.values
        variances = prediction.variances
        noises: dict[str, Any] = {
            name: noise_at(self, name, values, inputs) for name in self.observables
        }
        # Earlier residuals, for noise that looks back at them.
        back = {
            name: self._before(name, prediction, inputs)
            for name, noise in noises.items()
            if noise.looks_back
        }
        cross = self.cross_correlation
        found = {}
        if cross is not None and any(variances.get(name) is not None for name in cross.observables):
            raise ModelError(
                "a layer that predicts a variance too needs bd.NormalNoise, and no "
                "cross_correlation"
            )
        together = {} if cross is None else cross.given(noises, values, inputs.times, back)
        for name, noise in noises.items():
            if name in together:
                found[name] = together[name]
            elif name in back:
                found[name] = noise.given(
                    values[name], inputs.times, back[name], variances.get(name)
                )
            else:
                found[name] = noise.around(values[name], variances.get(name))
        return found

    def _before(self, name: str, prediction: Prediction, inputs: Inputs) -> Any:
        """Return earlier residuals of an observable whose noise looks back; None without data."""
        if (past := inputs.past) is None or name not in past.values:
            return None
        then = inputs
        if not past.same:
            then = dataclasses.replace(inputs, times=past.times, per_datum=past.per_datum)
        noise: Any = noise_at(self, name, prediction.before, then)
        return noise.before(then.times, past.values[name], prediction.before[name], same=past.same)


def noise_at(model: Model, name: str, values: Values, inputs: Inputs) -> AbstractNoise:
    """Return the noise of an observable with its parameters evaluated at all times.

    Args:
        model: a model without random leaves.
        name: the observable.
        values: the prediction of the layer, `(time, …)` by name, in the units of the outputs.
        inputs: the inputs of the prediction.

    Returns:
        The noise, whose parameters are numbers or arrays.
    """
    # 1. Random effects: the parameters of each subject.
    every, varied = model.noise, model.varied_noise
    if varied and isinstance(model.layer, AbstractPopulation):
        every = of_members(every, varied, inputs.coordinates[model.layer.dim])
    noise = every[name] if isinstance(every, Mapping) else every
    if not noise.varies:
        return noise
    # 2. Known values of each datum.
    reads = model.reader.reads(name).items()
    of_data = {read.leaf.variable: inputs.per_datum[variable] for variable, read in reads}
    # 3. Functions of time, predictions and forcings. Times and forcings get axes of length 1
    # for the places of the observable.
    ndim = values[name].ndim

    def over_places(s):
        return jnp.reshape(s, s.shape[:1] + (1,) * (ndim - s.ndim) + s.shape[1:])

    alike = {other: value for other, value in values.items() if value.ndim == ndim}
    forced = {n: over_places(v) for n, v in inputs.forced_at_times().items()}
    return noise.at(over_places(inputs.times), alike, forced, of_data)
