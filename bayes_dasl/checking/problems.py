"""Everything for which a fit refuses a model and its data, not only the first problem."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import xarray as xr

from ..data.censoring import refuse_censored
from ..data.datasets import observations
from ..errors import BayesDaslError, DataError
from ..layers._priors import check_priors
from ..model import (
    Model,
    check_data,
    check_shapes,
    check_times,
    refuse_fill_value,
    refuse_inexact_counts,
    refuse_names_of_results,
    refuse_ruled_out,
    refuse_unknown_units,
)


def problems_of(model: Model, data: xr.Dataset) -> list[BayesDaslError]:
    """Return the errors that `check_data` would raise one after the other.

    Args:
        model: the model.
        data: the data of a fit.

    Returns:
        The errors, each message once; none if the model can be fitted.
    """
    try:
        check_data(model, data)
        return []
    except BayesDaslError as error:
        first = error
    found = {str(first): first}
    # Whatever else fails here follows from the first problem.
    with suppress(Exception):
        for refuse, *given in _refusals(model, data, first):
            try:
                refuse(*given)
            except BayesDaslError as error:
                found.setdefault(str(error), error)
            except Exception:
                continue
    return list(found.values())


def _refusals(model: Model, data: xr.Dataset, first: BayesDaslError) -> Iterator[tuple[Any, ...]]:
    """Yield functions with arguments, each of which looks at one thing alone."""
    # 1. The model.
    yield check_priors, model
    yield refuse_names_of_results, model
    yield refuse_unknown_units, model
    yield check_times, model, data
    # 2. Absent variables. The first error may have named one of them.
    variables = (*model.observables, *model.layer.forcings)
    for name in variables:
        if name not in data and f"'{name}' is not in the data" not in str(first):
            yield _refuse_absent, name
    # 3. Values.
    own = model.in_own_units(data)
    forcings = [name for name in model.layer.forcings if name in data]
    # Other forcings are made whole, so that each is looked at alone.
    zero = xr.zeros_like(own[model.index], float)
    whole = {n: own[n].fillna(0.0) if n in forcings else zero for n in model.layer.forcings}
    filled = own.assign(whole)
    for name in forcings:
        yield model.inputs, filled.assign({name: own[name]})
        yield refuse_fill_value, model, own, name
    for name in model.observables:
        if name in data:
            yield refuse_censored, own, name, model.reader.reads(name)
            yield _refuse_values, model, filled, name
    # 4. Equations.
    yield _refuse_shapes, model, filled


def _refuse_absent(name: str) -> None:
    """Raise DataError for a variable that the data lack."""
    raise DataError(f"'{name}' is not in the data")


def _refuse_values(model: Model, data: xr.Dataset, name: str) -> None:
    """Raise DataError for values of an observable that its noise rules out."""
    values = observations(data, name, dims=model.dims(name))
    refuse_fill_value(model, data, name)
    refuse_inexact_counts(model, data, name)
    refuse_ruled_out(model, name, values, data[model.index].values, model.inputs(data))


def _refuse_shapes(model: Model, data: xr.Dataset) -> None:
    """Raise ModelError if the equations cannot be evaluated."""
    check_shapes(model, model.inputs(data))
