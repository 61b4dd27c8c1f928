"""`Reader`: the inputs, observations and covariates that a layer and its noise read from data."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Float

from ..data.datasets import checked_times, in_units, inputs, observations, per_datum
from ..data.dates import has_dates, in_numbers, start_in_numbers, told_of, unit_of
from ..data.layer_inputs import Inputs, OwnRows, Past
from ..errors import DataError
from ..layers import AbstractFilter, AbstractLayer
from ..layers.layer import AbstractPopulation, start_of
from ..noise import AbstractNoise, Read

type Observed = dict[str, Float[Array, "time ..."]]


@dataclass(frozen=True)
class Reader:
    """Reads from datasets for a layer and the noise of its observables.

    Args:
        layer: the layer.
        noises: the noise of each observable.
        all_rows: whether all rows are needed even where a subject was not observed.
    """

    layer: AbstractLayer
    noises: Mapping[str, AbstractNoise]
    all_rows: bool = False

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
        return (self.index, *self.layer.dims.get(observable, ()))

    @property
    def looks_back(self) -> bool:
        """Whether the distribution of a datum depends on earlier data."""
        return any(noise.looks_back for noise in self.noises.values())

    @property
    def index_units(self) -> str:
        """The stated units of the index, such as `h since 2001-01-01`, or an empty text."""
        return self.layer.units.get(self.index, "")

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
        data = self.in_own_units(data)
        past = self.past(data)
        past = None if past is None else dataclasses.replace(past, same=True)
        return dataclasses.replace(
            self.driven(data, start=start), past=past, per_datum=self.per_datum(data)
        )

    def driven(self, data: xr.Dataset, *, start: float | None = None) -> Inputs:
        """Return the times, forcings and places for a dataset, without observations.

        Args:
            data: a dataset with the index and the forcings of the layer.
            start: as for `inputs`.

        Returns:
            Inputs of the layer.

        Raises:
            DataError: if a forcing has a gap, times fall, or the subjects are missing.
        """
        layer, data = self.layer, self.in_own_units(data)
        if start is None:
            start = start_in_numbers(start_of(layer), data, self.index, self.index_units)
        data = self.in_numbers(data)
        places = dict.fromkeys(dim for name in self.noises for dim in self.dims(name)[1:])
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

    def at_own_rows(
        self, inputs: Inputs, observed: Observed
    ) -> tuple[Inputs, dict[str, Array], OwnRows | None]:
        """Select the inputs and data of each subject's own rows, to save work.

        Constraints may read all times, so that with them all rows are kept.

        Args:
            inputs: the inputs of the data.
            observed: the data by name, NaN where missing.

        Returns:
            Inputs, data, and the rows; None for the rows if all are kept.
        """
        rows = None
        alone = not self.all_rows and inputs.past is None
        if isinstance(self.layer, AbstractPopulation) and alone:
            rows = self.layer.own_rows(observed)
        if rows is None:
            return inputs, observed, None
        return inputs.at_rows(rows), rows.seen(observed), rows

    def solved_at(self, inputs: Inputs) -> tuple[Inputs, Any, Any]:
        """Return the inputs of the layer, and the positions of the times to predict and of past
        times.

        Args:
            inputs: start, times, forcings and places, with the past if noise looks back.

        Returns:
            As `Inputs.with_past`.
        """
        return inputs.with_past() if self.looks_back else (inputs, slice(None), slice(None))

    def past(self, data: xr.Dataset) -> Past | None:
        """Return the observations for a filtering layer or correlated noise; None for other models.

        Args:
            data: a dataset with the index and observations, NaN where missing.

        Returns:
            The observations with their times.

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
            when = told_of(data[self.index], float(times[i]))
            raise DataError(
                f"{self.index} {when} has several rows, but {kind} goes from each row to the next: "
                "give it one row, such as the mean of the replicates"
            )
        read = {} if filters else self.per_datum(data, held)
        return Past(jnp.asarray(times), values, per_datum=read)

    def observed(self, data: xr.Dataset, names: Sequence[str]) -> Observed:
        """Return the arrays of some observables by name."""
        return {name: jnp.asarray(observations(data, name, dims=self.dims(name))) for name in names}

    def reads(self, observable: str) -> dict[str, Read]:
        """Return what the noise of an observable reads for each datum, by variable of the data.

        Args:
            observable: its name.

        Returns:
            One entry by variable.
        """
        return {read.leaf.named(observable): read for read in self.noises[observable].reads}

    @property
    def variables(self) -> tuple[str, ...]:
        """The variables of the data that the noise of any observable reads."""
        found = (name for observable in self.noises for name in self.reads(observable))
        return tuple(dict.fromkeys(found))

    def per_datum(
        self, data: xr.Dataset, observables: Sequence[str] | None = None
    ) -> dict[str, Float[Array, "time ..."]]:
        """Return the variables that the noise reads for each datum, `(time, …)` by name.

        Args:
            data: a dataset with these variables, in the units of the observables.
            observables: some of the observables; by default all.

        Returns:
            One array by variable.

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
        """Return the noise of an observable with the known values of each datum filled in.

        Args:
            observable: its name.
            inputs: the inputs of the data.

        Returns:
            The noise; its unknown parameters stay random leaves.
        """
        reads = self.reads(observable).items()
        of_data = {read.leaf.variable: np.asarray(inputs.per_datum[name]) for name, read in reads}
        return self.noises[observable].told(of_data)

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
        dims = (dim for name in self.noises for dim in self.dims(name))
        names = dict.fromkeys((*self.noises, *self.layer.forcings, *dims))
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
        """Replace dates of the index by the numbers of the layer.

        Args:
            data: a dataset with the index; one with numbers stays as it is.

        Returns:
            The dataset with numbers.

        Raises:
            DataError: if dates would coincide as numbers.
            ModelError: if the layer states no unit of time.
        """
        return in_numbers(data, self.index, self.index_units)

    def _units_beside(self, data: xr.Dataset) -> dict[str, str]:
        """Return the units of variables that the noise reads in units of the observable."""
        found = {}
        for observable in self.noises if isinstance(data, xr.Dataset) else ():
            held = data[observable].attrs.get("units", "") if observable in data else ""
            of_data = self.layer.units.get(observable, "") or held
            for name, read in self.reads(observable).items():
                if read.in_units_of_data:
                    found[name] = of_data
        return found
