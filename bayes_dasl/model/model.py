"""`Model`: a layer with observation noise, as a NumPyro model."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import xarray as xr
from jaxtyping import Array, Float

from .._statistics.tails import seen_and_filled
from ..data.datasets import checked_times, in_units, inputs, observations, per_datum
from ..data.dates import has_dates, in_numbers, index_in_words, start_in_numbers, unit_of
from ..data.layer_inputs import Inputs, OwnRows, Past
from ..errors import DataError, ModelError
from ..layers import AbstractFilter, AbstractLayer, Prediction
from ..layers._priors import check_priors
from ..layers.layer import AbstractPopulation, of_members, start_of
from ..noise import AbstractCrossCorrelation, AbstractNoise, Read
from ..random import Module, Values, is_function, paths, sample

type Observed = dict[str, Float[Array, "time ..."]]
type Constraint = Callable[[Values, Inputs], Float[Array, "..."]]


@dataclass(frozen=True)
class Reader:
    """Extracts from datasets what a model needs: inputs, observations, and variables of the noise.

    Args:
        layer: the layer of the model.
        noise: the noise of all outputs of the layer, or a dict by observable.
        constraints: the soft constraints of the model, by name.
    """

    layer: AbstractLayer
    noise: AbstractNoise | Mapping[str, AbstractNoise]
    constraints: Mapping[str, Constraint]

    @property
    def noises(self) -> Mapping[str, AbstractNoise]:
        """The noise of each observable, by name."""
        if isinstance(self.noise, Mapping):
            return self.noise
        return dict.fromkeys(self.layer.outputs, self.noise)

    @property
    def index(self) -> str:
        """The name of the coordinate along which rows lie, such as `time`."""
        return self.layer.index

    def dims(self, observable: str) -> tuple[str, ...]:
        """Return the dimensions of an observable, the index first."""
        return (self.index, *self.layer.dims.get(observable, ()))

    @property
    def places(self) -> dict[str, None]:
        """The dimensions of all observables besides the index, in order; the values are None."""
        return dict.fromkeys(dim for name in self.noises for dim in self.dims(name)[1:])

    @property
    def looks_back(self) -> bool:
        """Whether the distribution of a datum depends on earlier data."""
        return any(noise.looks_back for noise in self.noises.values())

    @property
    def index_units(self) -> str:
        """The stated units of the index, such as `h since 2001-01-01`, or an empty text."""
        return self.layer.units.get(self.index, "")

    def inputs(self, data: xr.Dataset, *, start: float | None = None) -> Inputs:
        """Return the inputs of the model for a dataset; see `Model.inputs`."""
        data = self.in_own_units(data)
        past = self.past(data)
        past = None if past is None else dataclasses.replace(past, same=True)
        return dataclasses.replace(
            self.driven(data, start=start), past=past, per_datum=self.per_datum(data)
        )

    def driven(self, data: xr.Dataset, *, start: float | None = None) -> Inputs:
        """Return the inputs of the layer for a dataset, without observations.

        Args:
            data: a dataset with the index, the forcings and the other coordinates of the layer.
            start: the start of the solve, in the units of the index. The default is that of the
                layer, else the first time.

        Returns:
            Inputs with the start, times, forcings and coordinates.

        Raises:
            DataError: if a forcing has a gap, if times decrease, or if the data of a population
                have no coordinate with the names of its members.
        """
        layer, data = self.layer, self.in_own_units(data)
        if start is None:
            start = start_in_numbers(start_of(layer), data, self.index, self.index_units)
        data = self.in_numbers(data)
        population = isinstance(layer, AbstractPopulation)
        found = inputs(
            data,
            start=start,
            forcings=layer.forcings,
            interpolation=layer.interpolation,
            index=self.index,
            places=self.places,
            members=layer.dim if population else None,
        )
        if not population:
            return found
        if layer.dim not in data.coords:
            raise DataError(f"data need a coordinate '{layer.dim}' that says whose they are")
        at = {layer.dim: jnp.asarray(layer.positions(data[layer.dim].values))}
        return dataclasses.replace(found, coordinates=found.coordinates | at)

    def at_own_rows(
        self, inputs: Inputs, observed: Observed
    ) -> tuple[Inputs, dict[str, Array], OwnRows | None]:
        """Select for each member of a population the rows at which it was observed, to save work.

        All rows are kept if the model has constraints, since these may read all times. They are
        also kept if the noise depends on earlier data.

        Args:
            inputs: the inputs of the data.
            observed: the data by observable, NaN where missing.

        Returns:
            The inputs and the data at the selected rows, and these rows. If all rows are kept, the
            arguments themselves and None.
        """
        rows = None
        alone = not self.constraints and inputs.past is None
        if isinstance(self.layer, AbstractPopulation) and alone:
            rows = self.layer.own_rows(observed)
        if rows is None:
            return inputs, observed, None
        return inputs.at_rows(rows), rows.seen(observed), rows

    def solved_at(self, inputs: Inputs) -> tuple[Inputs, Any, Any]:
        """Return the inputs with which the layer is called, which may include times of past data.

        Noise that depends on earlier data needs predictions at the times of these data too.

        Args:
            inputs: the inputs of the model, with past observations if the noise depends on them.

        Returns:
            The inputs of the layer; the positions of the times to predict among its times; and the
            positions of the past times. Both positions are a full slice if no times are added.
        """
        return inputs.with_past() if self.looks_back else (inputs, slice(None), slice(None))

    def past(self, data: xr.Dataset) -> Past | None:
        """Return the earlier observations that a filter or correlated noise depends on.

        Args:
            data: a dataset with the index and observations, NaN where missing.

        Returns:
            The observations with their times. None for other models, or if there are none in the
            data.

        Raises:
            DataError: if several rows have the same time.
        """
        filters = isinstance(self.layer, AbstractFilter)
        there = [name for name in self.noises if name in data]
        held = [name for name in there if filters or self.noises[name].looks_back]
        if not held:
            return None
        data = self.in_numbers(self.in_own_units(data))
        values = self.observed(data, held)
        times = checked_times(data, self.index)
        for i in np.flatnonzero(np.diff(times) == 0)[:1]:
            kind = type(self.layer if filters else self.noises[held[0]]).__name__
            when = index_in_words(data[self.index], float(times[i]))
            raise DataError(
                f"{self.index} {when} has several rows, but {kind} goes from each row to the next: "
                "give it one row, such as the mean of the replicates"
            )
        read = {} if filters else self.per_datum(data, held)
        return Past(jnp.asarray(times), values, per_datum=read)

    def observed(self, data: xr.Dataset, names: Sequence[str]) -> Observed:
        """Return the data of some observables, `(time, …)` by name, NaN where missing."""
        return {name: jnp.asarray(observations(data, name, dims=self.dims(name))) for name in names}

    def reads(self, observable: str) -> dict[str, Read]:
        """Return the variables of the data that the noise of an observable reads for each datum.

        Args:
            observable: the name of the observable.

        Returns:
            The description of each variable, by its name in the data.
        """
        return {read.leaf.named(observable): read for read in self.noises[observable].reads}

    @property
    def variables(self) -> tuple[str, ...]:
        """The names of the variables of the data that the noise of any observable reads."""
        found = (name for observable in self.noises for name in self.reads(observable))
        return tuple(dict.fromkeys(found))

    def per_datum(
        self, data: xr.Dataset, observables: Sequence[str] | None = None
    ) -> dict[str, Float[Array, "time ..."]]:
        """Return the variables that the noise reads for each datum, `(time, …)` by name.

        Args:
            data: a dataset with these variables, in the units of the observables.
            observables: the observables whose noise reads the variables; by default all.

        Returns:
            An array for each variable.

        Raises:
            DataError: if a variable is missing, has other dimensions, or an impossible value.
        """
        found = {}
        for observable in self.noises if observables is None else observables:
            dims = self.dims(observable)
            for name, read in self.reads(observable).items():
                leaf = read.leaf
                found[name] = jnp.asarray(
                    per_datum(
                        data, name, observable, dims, read.support, leaf.otherwise, leaf.needed
                    )
                )
        return found

    def filled(self, observable: str, inputs: Inputs) -> AbstractNoise:
        """Return the noise of an observable, with values from the data in place of `PerDatum`.

        Args:
            observable: the name of the observable.
            inputs: the inputs of the data.

        Returns:
            The noise. Its unknown parameters are still random leaves.
        """
        reads = self.reads(observable).items()
        of_data = {read.leaf.variable: np.asarray(inputs.per_datum[name]) for name, read in reads}
        return self.noises[observable].filled(of_data)

    def in_own_units(self, data: xr.Dataset) -> xr.Dataset:
        """Convert data to the units of the layer; see `Model.in_own_units`."""
        names = (*self.noises, *self.layer.forcings, self.index, *self.places)
        units = {name: self.layer.units.get(name, "") for name in names}
        # On dates, units are netCDF's encoding and not those of the model.
        if has_dates(data, self.index):
            plain = dict(data[self.index].attrs)
            plain.pop("units", None)
            plain.pop("calendar", None)
            data = data.assign_coords({self.index: (self.index, data[self.index].values, plain)})
        data = in_units(data, units | {self.index: unit_of(units[self.index])})
        return in_units(data, self._units_beside(data))

    def in_numbers(self, data: xr.Dataset) -> xr.Dataset:
        """Replace dates of the index by numbers in the layer's unit of time.

        `Model.in_numbers` describes the arguments, result and errors.
        """
        return in_numbers(data, self.index, self.index_units)

    def _units_beside(self, data: xr.Dataset) -> dict[str, str]:
        """Return the units of those variables that the noise reads in the units of an observable.

        The units are those that the layer states for the observable, else those of the data.
        """
        found = {}
        for observable in self.noises if isinstance(data, xr.Dataset) else ():
            held = data[observable].attrs.get("units", "") if observable in data else ""
            of_data = self.layer.units.get(observable, "") or held
            for name, read in self.reads(observable).items():
                if read.in_units_of_data:
                    found[name] = of_data
        return found


class Model(Module):
    """A scientific layer observed with noise: a NumPyro model whose parameters are random leaves.

    `model(data)` conditions on the observables in the dataset. `model(model.inputs(data))` draws
    the observables instead. If the solver fails for a draw of the parameters, the log density is −∞
    and its gradient is finite.

    Args:
        layer: the layer that predicts, such as `bd.ODE` or a hybrid of layers.
        noise: one noise for all outputs of the layer, which then share its parameters. Or a dict of
            noise by observable; outputs that are not in the dict are not observed.
        constraints: soft constraints by name. Each is a function `f(values, inputs)` of the layer's
            predictions and inputs. It returns residuals of any shape, divided by their tolerance.
            The likelihood treats each residual as a standard normal variable that was observed to
            be zero. In results, the group `constraint_residual` holds the root mean square of the
            residuals by draw.
        cross_correlation: the correlation between the residuals of several observables, such as
            `bd.filtering.CrossCorrelation`; None for independent residuals.
        varied_noise: internal, set when a model is copied: the paths of parameters of the noise
            that differ between members of a population.

    Raises:
        ModelError: if the noise names an unknown output, a distribution is no valid prior, or one
            distribution object stands in two places without `bd.shared`. Also if a constraint is no
            function or has a reserved name, or if observables cannot be correlated.

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
        # Random effects in the noise become arrays with one value for each member.
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
                    "cross_correlation must be a bd.filtering.CrossCorrelation, not "
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
        taken |= {"chain", "draw", "solver_ok", "constraint_residuals"}
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
        return tuple(self.reader.noises)

    @property
    def index(self) -> str:
        """The name of the coordinate along which rows lie, such as `time`."""
        return self.layer.index

    def dims(self, observable: str) -> tuple[str, ...]:
        """Return the dimensions of an observable, the index first.

        Args:
            observable: the name of the observable.

        Returns:
            The names of the dimensions.
        """
        return self.reader.dims(observable)

    @property
    def reader(self) -> Reader:
        """The object that extracts inputs, observations and covariates from datasets."""
        return Reader(self.layer, self.noise, self.constraints)

    def inputs(self, data: xr.Dataset, *, start: float | None = None) -> Inputs:
        """Return the inputs of this model for a dataset.

        Args:
            data: a dataset with the index, the forcings of the layer and the variables that the
                noise reads. Only a filter or correlated noise reads observations too.
            start: the start of the solve, in the units of the index. The default is that of the
                layer, else the first time.

        Returns:
            The start, times, forcings and other coordinates. Also the earlier observations and the
            variables of the noise, if the model needs them.
        """
        return self.reader.inputs(data, start=start)

    def in_own_units(self, data: xr.Dataset) -> xr.Dataset:
        """Convert the variables of a dataset to the units that the layer states for them.

        A variable for which the data or the layer state no units stays unchanged.

        Args:
            data: a dataset with observables and forcings.

        Returns:
            The converted dataset.

        Raises:
            DataError: if units have another physical dimension, or if a coordinate has other units
                than the layer states.
        """
        return self.reader.in_own_units(data)

    def in_numbers(self, data: xr.Dataset) -> xr.Dataset:
        """Replace dates of the index by numbers in the layer's unit of time.

        Args:
            data: a dataset with the index. If the index has numbers already, it stays unchanged.

        Returns:
            The dataset with a numeric index.

        Raises:
            DataError: if different dates would become the same number.
            ModelError: if the layer states no unit of time.
        """
        return self.reader.in_numbers(data)

    def __leaf_dims__(self, path: tuple[str, ...]) -> dict[str, tuple[Any, ...]]:
        """Return the dimension of a random leaf in the noise that differs between members.

        Args:
            path: the names of fields and keys from the model to the leaf.

        Returns:
            `{dimension: names of the members}`; an empty dict for any other leaf.
        """
        varies = path[0] == "noise" and ".".join(path[1:]) in self.varied_noise
        return {self.layer.dim: self.layer.members} if varies else {}  # pyright: ignore

    def __leaf_units__(self, path: tuple[str, ...]) -> str:
        """Return the units of a random leaf in the noise.

        Args:
            path: the names of fields and keys from the model to the leaf.

        Returns:
            The units that the layer states for the observable, if the parameter is in these units.
            Else an empty string.
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
            observable: the name of the observable.

        Returns:
            The noise.
        """
        if isinstance(self.noise, Mapping):
            return self.noise[observable]
        return self.noise

    def __call__(self, data: xr.Dataset | Inputs, observed: Observed | None = None) -> None:
        """Run as a NumPyro model, from a dataset, or from inputs and observed arrays.

        Args:
            data: a dataset, whose observables are conditioned on; or the inputs of the model.
            observed: only with inputs: the data of each observable, `(time, …)`, NaN where missing.
                An observable without data is drawn.
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
        if prediction.constraint_residuals:
            numpyro.factor("constraint_residuals", prediction.log_factor)
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
        """Return the prediction of the layer, with the residuals of the model's constraints.

        The model must have numbers in place of random leaves.

        Args:
            inputs: the inputs of the model, from `Model.inputs`.

        Returns:
            The prediction.

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
        # Residuals of a failed solve are zero, since a constraint may be singular at its values.
        broken = {
            name: jnp.where(prediction.ok, jnp.asarray(law(prediction.values, inputs)), 0.0)
            for name, law in self.constraints.items()
        }
        for name in broken:
            if name in prediction.constraint_residuals:
                raise ModelError(
                    f"constraint '{name}' has the name of a constraint residual of the layer "
                    "itself: rename it"
                )
        return dataclasses.replace(
            prediction, constraint_residuals=prediction.constraint_residuals | broken
        )

    def conditional(self, prediction: Prediction, inputs: Inputs) -> dict[str, dist.Distribution]:
        """Return the distribution of the data of each observable, given a prediction.

        Args:
            prediction: the result of `predict`.
            inputs: the inputs from which it was predicted.

        Returns:
            A NumPyro distribution by observable, with the shape of the prediction.

        Raises:
            ModelError: if the layer predicts the variance of an observable with a
                `cross_correlation`.
        """
        values = prediction.values
        variances = prediction.variances
        noises: dict[str, Any] = {
            name: noise_at(self, name, values, inputs) for name in self.observables
        }
        # Earlier residuals, for noise that depends on them.
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
        """Return the earlier residuals of an observable whose noise depends on them.

        None if there are no earlier data of the observable.
        """
        if (past := inputs.past) is None or name not in past.values:
            return None
        then = inputs
        if not past.same:
            then = dataclasses.replace(inputs, times=past.times, per_datum=past.per_datum)
        noise: Any = noise_at(self, name, prediction.before, then)
        return noise.before(then.times, past.values[name], prediction.before[name], same=past.same)


def noise_at(model: Model, name: str, values: Values, inputs: Inputs) -> AbstractNoise:
    """Return the noise of an observable, with its varying parameters evaluated at all times.

    Args:
        model: a model with numbers in place of random leaves.
        name: the observable.
        values: the prediction of the layer, `(time, …)` by name, in the units of the outputs.
        inputs: the inputs from which the layer predicted.

    Returns:
        The noise. Its parameters are numbers, or arrays over the data.
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
