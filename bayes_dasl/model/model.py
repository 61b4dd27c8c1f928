"""A layer and observation noise: together a NumPyro model."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
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
from ..data.dates import has_dates, in_numbers, start_in_numbers, told_of, unit_of
from ..data.layer_inputs import Inputs, OwnRows, Past
from ..errors import DataError, ModelError
from ..layers import AbstractFilter, AbstractLayer, Prediction
from ..layers._priors import check_priors
from ..layers.layer import AbstractPopulation, of_members, start_of
from ..noise import AbstractCrossCorrelation, AbstractNoise, Read
from ..random import Module, Values, is_function, paths, sample

type Observed = dict[str, Float[Array, "time ..."]]
type Constraint = Callable[[Values, Inputs], Float[Array, "..."]]


class Model(Module):
    """A scientific layer observed with noise: a NumPyro model whose parameters are the random
    leaves.

    Calling the model runs it under NumPyro: `model(data)` conditions on the observables that the
    dataset holds, `model(inputs(data))` draws them. A draw at which the solver fails has log
    density −inf and a finite gradient.

    Args:
        layer: what predicts, such as `bd.ODE` or a hybrid of layers.
        noise: one noise model for every output of the layer (its parameters are then shared), or a
            dict that gives each observable its own; outputs that are not in it are not observed.
        constraints: soft laws by name, each a function of the layer's values and its inputs, which
            returns by how much they break the law, divided by how much of that is tolerated (any
            shape). Each number counts as a draw of the standard normal that was seen to be zero.
            What the posterior makes of them is in the group `mismatch`.
        cross_correlation: which observables have residuals that are correlated with one another,
            and how much; none unless given.
        varied_noise: what a copy is told of the original's noise: the numbers that differ between
            members.

    Raises:
        ModelError: if the noise names something that the layer does not predict, a distribution is
            no prior of a number, one object stands in two places where each would be an unknown of
            its own, a constraint is no function or has a name that is taken, or observables cannot
            be correlated.

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
        self.layer, self.constraints = layer, {} if constraints is None else constraints
        self.noise, found = (
            layer.over_members(noise) if isinstance(layer, AbstractPopulation) else (noise, ())
        )
        self.varied_noise, self.cross_correlation = found or varied_noise, cross_correlation

    def __check_init__(self):
        if not isinstance(self.layer, AbstractLayer):
            raise ModelError(
                f"layer must be a layer such as bd.ODE, not {type(self.layer).__name__}"
            )
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
                    "bd.NormalNoise, not "
                    f"{type(noise).__name__}"
                )
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
        if self.cross_correlation is not None:
            if not isinstance(self.cross_correlation, AbstractCrossCorrelation):
                raise ModelError(
                    "cross_correlation must be a noise.CrossCorrelation, not "
                    f"{self.cross_correlation!r}"
                )
            self.cross_correlation.refuse(
                {name: (self.noise_of(name), self.dims(name)) for name in self.observables}
            )
        if not isinstance(self.constraints, Mapping) or not all(
            map(is_function, self.constraints.values())
        ):
            raise ModelError(
                "constraints must be a dict of functions f(values, inputs), by the name of each law"
            )
        for name in self.constraints:
            if not isinstance(name, str) or "/" in name or name in ("chain", "draw"):
                raise ModelError(
                    f"a constraint cannot have the name {name!r}: no slash, and neither chain nor "
                    "draw"
                )
        check_priors(self)
        taken = {
            *self.observables,
            *self.constraints,
            self.index,
            "chain",
            "draw",
            "solver_ok",
            "mismatches",
        }
        for path, leaf in paths(self).items():
            first = path.split(".")[0]
            shared = leaf.own == 1 + path.count(".")
            if path in taken or (
                shared and first in ("layer", "noise", "constraints", "cross_correlation")
            ):
                raise ModelError(
                    f"what is shared cannot be called '{first}', which has another meaning: rename "
                    "it"
                )

    @property
    def observables(self) -> tuple[str, ...]:
        return tuple(self.noise) if isinstance(self.noise, Mapping) else self.layer.outputs

    @property
    def index(self) -> str:
        """The coordinate that the data run along."""
        return self.layer.index

    def dims(self, observable: str) -> tuple[str, ...]:
        """The dimensions of an observable, the index first.

        Args:
            observable: its name.
        """
        return (self.index, *self.layer.dims.get(observable, ()))

    def leaf_dims(self, path: tuple[str, ...]) -> dict[str, tuple[Any, ...]]:
        """The dimension of a random leaf of the noise that differs between the members of a
        population.

        Args:
            path: the names on the way from the model to the leaf.
        """
        varies = path[0] == "noise" and ".".join(path[1:]) in self.varied_noise
        return {self.layer.dim: self.layer.members} if varies else {}  # pyright: ignore

    def at_own_rows(
        self, inputs: Inputs, observed: Observed
    ) -> tuple[Inputs, dict[str, Array], OwnRows | None]:
        """Inputs and data at each member's own rows, and which these are; all, where a soft law may
        look at all times.

        Args:
            inputs: those of the data.
            observed: the data by name, NaN where missing.
        """
        alone = (
            isinstance(self.layer, AbstractPopulation)
            and not self.constraints
            and inputs.past is None
        )
        rows = self.layer.own_rows(observed) if alone else None  # pyright: ignore
        return (
            (inputs, observed, None)
            if rows is None
            else (inputs.at_rows(rows), rows.seen(observed), rows)
        )

    def leaf_units(self, path: tuple[str, ...]) -> str:
        """Units of a random leaf of the noise that has those of its data, where the layer states
        them.

        Args:
            path: the names on the way from the model to the leaf.
        """
        if path[0] != "noise":
            return ""
        names, field = (
            ((path[1],), path[2:])
            if isinstance(self.noise, Mapping)
            else (self.observables, path[1:])
        )
        noise = self.noise_of(names[0])
        while isinstance(inner := getattr(noise, field[0]), AbstractNoise):
            noise, field = inner, field[1:]
        if ".".join(field).removesuffix(".typical") not in noise.in_units_of_data:
            return ""
        stated = {self.layer.units.get(name, "") for name in names}
        return stated.pop() if len(stated) == 1 else ""

    def noise_of(self, observable: str) -> AbstractNoise:
        """The noise of an observable, as the model holds it: its parameters may be random.

        Args:
            observable: its name.
        """
        return self.noise[observable] if isinstance(self.noise, Mapping) else self.noise

    def __call__(self, data: xr.Dataset | Inputs, observed: Observed | None = None) -> None:
        """Run as a NumPyro model, from a dataset, or from inputs and observed arrays.

        Args:
            data: a dataset, or the inputs of the layer.
            observed: with inputs, the data of each observable, `(time, …)`, NaN where missing;
                observables that it lacks are drawn.
        """
        if isinstance(data, xr.Dataset):
            data = self.in_own_units(data)
            observed = {
                n: jnp.asarray(observations(data, n, dims=self.dims(n)))
                for n in self.observables
                if n in data
            }
            data = self.inputs(data)
        if observed is not None and data.past is None and self.looks_back:
            data = dataclasses.replace(
                data, past=Past(data.times, observed, same=True, per_datum=data.per_datum)
            )
        realised = sample(self)
        prediction = realised.predict(data)
        # NUTS may propose a corner where the solver fails: reject that draw, keep the chain alive.
        numpyro.factor("solver_ok", jnp.where(prediction.ok, 0.0, -jnp.inf))
        if prediction.mismatches:
            numpyro.factor("mismatches", prediction.log_factor)
        together = () if self.cross_correlation is None else self.cross_correlation.observables
        drawn = {*together} - {*(observed or ())}
        keys = (
            dict.fromkeys(drawn, numpyro.prng_key()) if drawn else {}
        )  # by one key they hold together
        for name, noise in realised.conditional(prediction, data).items():
            values = None if observed is None else observed.get(name)
            if values is None:
                numpyro.sample(name, noise, rng_key=keys.get(name))
            else:
                seen, filled = seen_and_filled(values)
                numpyro.sample(name, noise.mask(seen), obs=filled)

    def predict(self, inputs: Inputs) -> Prediction:
        """What the layer of a realised model predicts, and by how much that breaks the constraints.

        Args:
            inputs: start, times, forcings and places, as `inputs` gives them.
        """
        if isinstance(self.layer, AbstractFilter):
            prediction = self.layer(
                inputs, {name: self.noise_of(name).variance for name in self.observables}
            )
        else:
            whole, at, then = self.solved_at(inputs)
            prediction = self.layer(whole)
            if whole.past is not None:
                values = prediction.values
                asked, before = (
                    {name: v[rows] for name, v in values.items()} for rows in (at, then)
                )
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

    @property
    def looks_back(self) -> bool:
        """Whether a noise judges a datum given those before it."""
        return any(self.noise_of(name).looks_back for name in self.observables)

    def solved_at(self, inputs: Inputs) -> tuple[Inputs, Any, Any]:
        """The inputs that the layer is called with, and where the times asked for, and those of the
        past, lie in them.

        Args:
            inputs: start, times, forcings and places, with the past where noise looks back.
        """
        return inputs.with_past() if self.looks_back else (inputs, slice(None), slice(None))

    def inputs(self, data: xr.Dataset, *, start: float | None = None) -> Inputs:
        """Times, forcings and places for this model's layer, and what its noise reads of each
        datum.

        Args:
            data: a dataset with the index, the forcings of the layer and what the noise reads;
                observations are looked at by a filter and by correlated noise only.
            start: where the solve starts, in the units in which the layer has its times; unless
                given, at the `start` of the layer, else at the first time.
        """
        data = self.in_own_units(data)
        past = self.past(data)
        past = None if past is None else dataclasses.replace(past, same=True)
        return dataclasses.replace(
            self.driven(data, start=start), past=past, per_datum=self.per_datum(data)
        )

    def driven(self, data: xr.Dataset, *, start: float | None = None) -> Inputs:
        """Times, forcings and places alone.

        Args:
            data: a dataset with the index and the forcings of the layer.
            start: as for `inputs`.
        """
        layer, data = self.layer, self.in_own_units(data)
        if start is None:
            start = start_in_numbers(start_of(layer), data, self.index, self.index_units)
        data = self.in_numbers(data)
        places = dict.fromkeys(dim for name in self.observables for dim in self.dims(name)[1:])
        population = isinstance(layer, AbstractPopulation)
        found = inputs(
            data,
            start=start,
            forcings=layer.forcings,
            interpolation=layer.interpolation,
            index=self.index,
            places=places,
            members=layer.dim if population else None,
        )
        if not population:
            return found
        if layer.dim not in data.coords:
            raise DataError(f"data need a coordinate '{layer.dim}' that says whose they are")
        at = {layer.dim: jnp.asarray(layer.positions(data[layer.dim].values))}
        return dataclasses.replace(found, coordinates=found.coordinates | at)

    def reads(self, observable: str) -> dict[str, Read]:
        """What the noise of an observable reads of each datum, by the name of the data's variable.

        Args:
            observable: its name.
        """
        return {read.leaf.named(observable): read for read in self.noise_of(observable).reads}

    @property
    def read(self) -> tuple[str, ...]:
        """The variables of the data that the noise of any observable reads."""
        return tuple(
            dict.fromkeys(
                name for observable in self.observables for name in self.reads(observable)
            )
        )

    def per_datum(
        self, data: xr.Dataset, observables: Sequence[str] | None = None
    ) -> dict[str, Float[Array, "time ..."]]:
        """What the noise reads of each datum, `(time, …)` by the name of the data's variable.

        Args:
            data: a dataset with these variables, in the units of the observables.
            observables: of which; of all unless given.

        Raises:
            DataError: where one of them is missing, has other dimensions, or a number that cannot
                be.
        """
        found = {}
        for observable in self.observables if observables is None else observables:
            dims = self.dims(observable)
            for name, read in self.reads(observable).items():
                values = per_datum(
                    data,
                    name,
                    observable,
                    dims,
                    read.support,
                    read.leaf.otherwise,
                    read.leaf.needed,
                )
                found[name] = jnp.asarray(values)
        return found

    def told(self, observable: str, inputs: Inputs) -> AbstractNoise:
        """The noise of an observable where what is known of each datum is in its place.

        Args:
            observable: its name.
            inputs: those of the data.
        """
        reads = self.reads(observable).items()
        of_data = {read.leaf.variable: np.asarray(inputs.per_datum[name]) for name, read in reads}
        return self.noise_of(observable).told(of_data)

    def past(self, data: xr.Dataset) -> Past | None:
        """The observations that a filtering layer or correlated noise looks back at; none for
        others, or without any.

        Args:
            data: a dataset with the index and observations, NaN where missing.

        Raises:
            DataError: for several rows at one time.
        """
        filters = isinstance(self.layer, AbstractFilter)
        held = [
            name
            for name in self.observables
            if name in data and (filters or self.noise_of(name).looks_back)
        ]
        if not held:
            return None
        data = self.in_numbers(self.in_own_units(data))
        values = {
            name: jnp.asarray(observations(data, name, dims=self.dims(name))) for name in held
        }
        times = checked_times(data, self.index)
        for i in np.flatnonzero(np.diff(times) == 0)[:1]:
            kind = type(self.layer if filters else self.noise_of(held[0])).__name__
            when = told_of(data[self.index], float(times[i]))
            raise DataError(
                f"{self.index} {when} has several rows, but {kind} goes from each row to the next: "
                "give it one row, "
                "such as the mean of the replicates"
            )
        return Past(
            jnp.asarray(times), values, per_datum={} if filters else self.per_datum(data, held)
        )

    def in_own_units(self, data: xr.Dataset) -> xr.Dataset:
        """Data in the units of the layer, where both state them.

        Args:
            data: a dataset with observables and forcings; those in other units of the same
                dimension are converted.

        Raises:
            DataError: for units of another dimension, or of the index or a place.
        """
        dims = (dim for name in self.observables for dim in self.dims(name))
        names = dict.fromkeys((*self.observables, *self.layer.forcings, *dims))
        units = {name: self.layer.units.get(name, "") for name in names}
        if has_dates(data, self.index):  # what a unit of dates is, netCDF says
            plain = {
                name: v
                for name, v in data[self.index].attrs.items()
                if name not in ("units", "calendar")
            }
            data = data.assign_coords({self.index: (self.index, data[self.index].values, plain)})
        data = in_units(data, units | {self.index: unit_of(units[self.index])})
        return in_units(data, self._units_beside(data))

    @property
    def index_units(self) -> str:
        """The units of the index that the layer states, such as `h since 2001-01-01`; empty if it
        states none.
        """
        return self.layer.units.get(self.index, "")

    def in_numbers(self, data: xr.Dataset) -> xr.Dataset:
        """Data with the numbers that the layer has for dates; others as they are.

        Args:
            data: a dataset with the index.

        Raises:
            DataError: for dates that numbers cannot tell apart.
            ModelError: if the layer states no unit of time.
        """
        return in_numbers(data, self.index, self.index_units)

    def _units_beside(self, data: xr.Dataset) -> dict[str, str]:
        """The units of what the noise reads of each datum:
        where they are those of the observable.
        """
        found = {}
        for observable in self.observables if isinstance(data, xr.Dataset) else ():
            held = data[observable].attrs.get("units", "") if observable in data else ""
            of_data = self.layer.units.get(observable, "") or held
            found |= {
                name: of_data
                for name, read in self.reads(observable).items()
                if read.in_units_of_data
            }
        return found

    def conditional(self, prediction: Prediction, inputs: Inputs) -> dict[str, dist.Distribution]:
        """The distribution of each observable, given a prediction of a realised model and its
        inputs.

        Args:
            prediction: what `predict` returned.
            inputs: those that it was called with.
        """
        values, variances = prediction.values, prediction.variances
        noises: dict[str, Any] = {
            name: self.noise_at(name, values, inputs) for name in self.observables
        }
        back = {
            name: self._before(name, prediction, inputs)
            for name, noise in noises.items()
            if noise.looks_back
        }
        cross, found = self.cross_correlation, {}
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
        """What was seen of an observable whose noise looks back."""
        if (past := inputs.past) is None or name not in past.values:
            return None
        then = (
            inputs
            if past.same
            else dataclasses.replace(inputs, times=past.times, per_datum=past.per_datum)
        )
        noise: Any = self.noise_at(name, prediction.before, then)
        return noise.before(then.times, past.values[name], prediction.before[name], same=past.same)

    def noise_at(self, name: str, values: Values, inputs: Inputs) -> AbstractNoise:
        """The noise of an observable at all times, given what the layer of a realised model
        predicts.

        Args:
            name: that of the observable.
            values: what the layer predicts, `(time, …)` by name, in the units of the outputs.
            inputs: those of the prediction.
        """
        every = self.noise
        if self.varied_noise and isinstance(self.layer, AbstractPopulation):
            every = of_members(every, self.varied_noise, inputs.coordinates[self.layer.dim])
        noise = every[name] if isinstance(every, Mapping) else every
        if not noise.varies:
            return noise
        of_data = {
            read.leaf.variable: inputs.per_datum[variable]
            for variable, read in self.reads(name).items()
        }
        forced = inputs.forced_at_times()

        def over_places(s):
            return jnp.reshape(s, s.shape[:1] + (1,) * (values[name].ndim - s.ndim) + s.shape[1:])

        alike = {other: value for other, value in values.items() if value.ndim == values[name].ndim}
        return noise.at(
            over_places(inputs.times),
            alike,
            {n: over_places(v) for n, v in forced.items()},
            of_data,
        )
